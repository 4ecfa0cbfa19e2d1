//go:build unix

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestStatusShowsMembersAndHoldersAndChangesNothing(t *testing.T) {
	t.Parallel()
	urls := clusterURLs(t, 2)
	events := filepath.Join(t.TempDir(), "events")
	first := startNode(t, urls[0], forever, "--events", events)
	line := strings.Fields(first.stdout.next("hello runs on"))
	node, token := line[3], line[5]
	second := startNode(t, urls[1], forever)
	second.stderr.next("another node holds the id", "holder="+node)

	status := start(t, "status", "--json", "--cluster", urls[1])
	status.exits(0)
	var v view
	must(t, json.Unmarshal([]byte(status.stdout.all()), &v))
	if len(v.Modes) != 1 || v.Modes[0] != (modeView{Mode: "available", InView: 2}) {
		t.Errorf("the modes are %+v, not available mode with 2 voters", v.Modes)
	}
	switch {
	case len(v.Members) != 2 || !strings.HasPrefix(v.Members[0].Node, "node-1#") || !strings.HasPrefix(v.Members[1].Node, "node-2#"):
		t.Errorf("the members are %v, not node-1 and node-2", v.Members)
	case !strings.Contains(urls[0], v.Members[0].Addr) || !strings.Contains(urls[1], v.Members[1].Addr):
		t.Errorf("the addresses of %v are not those of the nodes", v.Members)
	}
	if len(v.Holders) != 1 || v.Holders[0].ID != "hello" || v.Holders[0].Node != node || v.Holders[0].Since.IsZero() {
		t.Errorf("the holders are %v, not %s of hello", v.Holders, node)
	}

	status = start(t, "status", "--cluster", urls[0])
	status.exits(0)
	for _, want := range []string{
		`available mode: 2 voters in view`, `MEMBERS \(2\) +ADDRESS`, `node-1#[0-9a-f]{16} +127\.[\d.]+:\d+`, `node-2#[0-9a-f]{16} +127\.[\d.]+:\d+`,
		`ID \(1\) +HOLDER +TOKEN +SINCE +META`, `hello +` + node + ` +` + token + ` +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`,
	} {
		if !regexp.MustCompile(`(?m)^` + want + `\s*$`).MatchString(status.stdout.all()) {
			t.Errorf("status does not show %q", want)
		}
	}
	if log := status.stderr.all(); log != "" {
		t.Errorf("status writes to standard error: %q", log)
	}

	if got := kinds(readEvents(t, events)); got != "waiting acquired started" {
		t.Errorf("the events of the holder are %q: the observer has changed something", got)
	}
	if second.stdout.all() != "" {
		t.Error("the waiting node has run the command")
	}
}

func TestStatusWatchesInAPipe(t *testing.T) {
	t.Parallel()
	urls := clusterURLs(t, 2)
	first := startNode(t, urls[0], forever)
	first.stdout.next("hello runs on")
	second := startNode(t, urls[1], forever)
	second.stderr.next("another node holds the id")

	table := start(t, "status", "--watch", "--cluster", urls[1])
	table.stdout.next("MEMBERS (2)")
	table.stdout.next("hello", "node-1#")
	asJSON := start(t, "status", "--watch", "--json", "--cluster", urls[1])
	asJSON.stdout.next(`"holders":[{"id":"hello","node":"node-1#`)

	first.signal(os.Kill)
	table.stdout.next("MEMBERS (1)")
	table.stdout.next("hello", "node-2#")
	asJSON.stdout.next(`"holders":[{"id":"hello","node":"node-2#`)
	for _, status := range []*process{table, asJSON} {
		status.signal(os.Interrupt)
		status.exits(0)
		if strings.ContainsAny(status.stdout.all(), "\x1b\r") {
			t.Error("there are codes for a terminal in the pipe")
		}
	}
	for line := range strings.Lines(asJSON.stdout.all()) {
		must(t, json.Unmarshal([]byte(line), new(view)))
	}
}

func TestStatusShowsTheQuorum(t *testing.T) {
	t.Parallel()
	urls := clusterURLs(t, 2)
	for i := range urls {
		urls[i] += "&quorum=2&ttl=2s"
	}
	first := startNode(t, urls[0], forever, "--shutdown", "500ms")
	second := startNode(t, urls[1], forever, "--shutdown", "500ms")
	first.stderr.next("joined the cluster")
	second.stderr.next("joined the cluster")

	status := start(t, "status", "--json", "--cluster", urls[0])
	status.exits(0)
	var v view
	must(t, json.Unmarshal([]byte(status.stdout.all()), &v))
	if want := (modeView{Mode: "quorum", InView: 2, Voters: 3, Quorum: 2, TTL: "2s"}); len(v.Modes) != 1 || v.Modes[0] != want {
		t.Errorf("the modes are %+v, not %+v", v.Modes, want)
	}

	if out := status.stdout.all(); !strings.Contains(out, `"problems":[]`) {
		t.Errorf("there are problems: %s", out)
	}

	asJSON := start(t, "status", "--watch", "--json", "--cluster", urls[0])
	asJSON.stdout.next(`"problems":[]`)
	table := start(t, "status", "--watch", "--cluster", urls[0])
	table.stdout.next("quorum mode: 2 of 3 voters in view, 2 needed; TTL 2s")
	second.signal(os.Kill)
	table.stdout.next("quorum mode: NO QUORUM, 1 of 3 voters in view, 2 needed; TTL 2s")
	asJSON.stdout.next(`"problems":["no quorum"]`)
	first.stderr.next("no quorum: ")
}

func TestStatusListsProblems(t *testing.T) {
	t.Parallel()
	quorumWith := func(inView int) modeView {
		return modeView{Mode: "quorum", InView: inView, Voters: 3, Quorum: 2, TTL: "2s"}
	}
	for _, test := range []struct {
		modes    []modeView
		problems string
		lines    string
	}{
		{[]modeView{{Mode: "available", InView: 1}}, "[]", "available mode: 1 voters in view\n"},
		{[]modeView{quorumWith(3)}, "[]", "quorum mode: 3 of 3 voters in view, 2 needed; TTL 2s\n"},
		{[]modeView{quorumWith(1)}, `["no quorum"]`, "quorum mode: NO QUORUM, 1 of 3 voters in view, 2 needed; TTL 2s\n"},
		{[]modeView{quorumWith(4)}, `["too many voters"]`, "quorum mode: TOO MANY VOTERS, 4 of 3 voters in view, 2 needed; TTL 2s\n"},
		{[]modeView{quorumWith(1), {Mode: "available", InView: 1}}, `["different settings","no quorum"]`,
			"NODES HAVE DIFFERENT SETTINGS; all need the same\nquorum mode: NO QUORUM, 1 of 3 voters in view, 2 needed; TTL 2s\navailable mode: 1 voters in view\n"},
	} {
		v := view{Modes: test.modes, Problems: problemsOf(test.modes)}
		var out strings.Builder
		must(t, v.print(&out))
		if !strings.HasPrefix(out.String(), test.lines+"\n") {
			t.Errorf("%v: it shows\n%s", test.modes, out.String())
		}
		if b, err := json.Marshal(v.Problems); err != nil || string(b) != test.problems {
			t.Errorf("%v: the problems are %s, %v, not %s", test.modes, b, err, test.problems)
		}
	}
}

func TestStatusWithoutANodeFails(t *testing.T) {
	t.Parallel()
	addr := freeAddrs(t, 1)[0]
	status := start(t, "status", "--cluster", "gossip://"+addr)
	status.exits(1)
	if got, want := status.stderr.all(), "highlander: no node of the cluster was found at "+addr+"; is one up, with the same label and key?\n"; got != want {
		t.Errorf("it says %q, not %q", got, want)
	}
	if out := status.stdout.all(); out != "" {
		t.Errorf("standard output has %q", out)
	}
}
