//go:build unix

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// That nobody survives shows in the standard error of the processes, which all
// of them share: exits waits until the last one has closed it.

func TestInterruptedDemoEndsItsNodes(t *testing.T) {
	t.Parallel()
	demo := prepare(t, roleHighlander, "demo")
	demo.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	demo.start()
	demo.stdout.next("Cutting")                                  // no node is about to start, which would not be deaf to it yet
	must(t, syscall.Kill(-demo.cmd.Process.Pid, syscall.SIGINT)) // Ctrl-C reaches the nodes, too
	demo.exits(128 + 2)
	if got := demo.stderr.all(); got != "highlander: stopped by a signal: interrupt\n" {
		t.Errorf("it says %q", got)
	}
}

func TestKilledDemoAndBenchLeaveNoNodes(t *testing.T) {
	t.Parallel()
	demo := start(t, "demo")
	demo.stdout.next("Cutting")
	demo.signal(os.Kill)
	demo.exits(-1)

	bench := start(t, "bench", "--only", "kill", "--rounds", "1000000")
	bench.stderr.next("measuring kill")
	bench.signal(os.Kill)
	bench.exits(-1)
}

func TestInterruptedBenchEndsItsNodes(t *testing.T) {
	t.Parallel()
	bench := start(t, "bench", "--only", "graceful", "--rounds", "1000000")
	bench.stderr.next("measuring graceful")
	bench.signal(syscall.SIGTERM)
	bench.exits(128 + 15)
	bench.stderr.next("highlander: stopped by a signal: terminated")
	if out := bench.stdout.all(); out != "" {
		t.Errorf("there are results on standard output: %q", out)
	}
}

// A node whose parent is gone ends, and stops its child first. Signals that
// reach all processes in a terminal are the parent's affair.
func TestNodeEndsWithItsInput(t *testing.T) {
	t.Parallel()
	node := prepare(t, "", nodeMode)
	in, err := node.cmd.StdinPipe()
	must(t, err)
	node.start()
	orders := json.NewEncoder(in)
	must(t, orders.Encode(nodeSetup{Name: "node", Label: label(t)}))
	must(t, orders.Encode(nodeOrder{Op: opWrap, ID: "hello"}))
	node.stdout.next(evStarted)
	node.signal(os.Interrupt)
	node.signal(syscall.SIGTERM)
	must(t, in.Close())
	node.stdout.next(evStopped, causeShutdown)
	node.exits(0)
}

const roleFrozenFleet = "parent of a frozen node"

func init() {
	roles[roleFrozenFleet] = func() {
		f := newFleet("", false)
		node, err := f.start(context.Background())
		if err == nil {
			_, err = f.freeze(node)
		}
		fmt.Println("frozen:", err)
		select {}
	}
}

func TestFrozenNodeEndsWithItsParent(t *testing.T) {
	if nodeAttr() == nil {
		t.Skip("this system does not end a process with its parent")
	}
	t.Parallel()
	parent := prepare(t, roleFrozenFleet)
	parent.start()
	parent.stdout.next("frozen: <nil>")
	parent.signal(os.Kill)
	parent.exits(-1)
}

func TestBenchReportsSaneFigures(t *testing.T) {
	t.Parallel()
	bench := start(t, "bench", "--rounds", "2", "--only", "graceful,kill", "--json")
	bench.exits(0)
	var rep report
	must(t, json.Unmarshal([]byte(bench.stdout.all()), &rep))
	if len(rep.Results) != 2 || rep.Results[0].Name != "graceful" || rep.Results[1].Name != "kill" {
		t.Fatalf("there are results for %v, not for graceful and kill", rep.Results)
	}
	for _, r := range rep.Results {
		if r.Rounds != 2 || r.Min <= 0 || r.Min > r.Median || r.Median > r.P99 || r.P99 > r.Max {
			t.Errorf("the figures of %s make no sense: %+v", r.Name, r)
		}
	}
	if rep.Machine == "" || rep.Version == "" {
		t.Errorf("the report lacks the machine or the version: %+v", rep)
	}
}

// The guard's certificate is faster than the TTL, and without a guard that has to
// pass.
func TestBenchKillsHighlanderRunInQuorumMode(t *testing.T) {
	t.Parallel()
	bench := start(t, "bench", "--rounds", "2", "--only", "quorum-kill,quorum-kill-guard", "--json")
	bench.exits(0)
	var rep report
	must(t, json.Unmarshal([]byte(bench.stdout.all()), &rep))
	if len(rep.Results) != 2 {
		t.Fatalf("there are results for %v", rep.Results)
	}
	certified, alone := rep.Results[0], rep.Results[1]
	if certified.Rounds != 2 || certified.Min <= 0 || certified.Min >= alone.Min || alone.Min < runTTL/2 {
		t.Errorf("the figures make no sense: %+v", rep.Results)
	}
}

func TestBenchMeasuresQuorumMode(t *testing.T) {
	t.Parallel()
	for only, want := range map[string]string{"graceful,crash": "graceful crash", "cut": "cut", "1000": "1000 1000"} {
		t.Run(only, func(t *testing.T) {
			t.Parallel()
			bench := start(t, "bench", "--rounds", "1", "--only", only, "--json", "--cluster", "gossip://?quorum=2&ttl=2s")
			bench.exits(0)
			var rep report
			must(t, json.Unmarshal([]byte(bench.stdout.all()), &rep))
			var names []string
			for _, r := range rep.Results {
				names = append(names, r.Name)
				if r.Rounds < 1 || r.Min <= 0 || r.Min > r.Max {
					t.Errorf("the figures of %s make no sense: %+v", r.Name, r)
				}
			}
			if got := strings.Join(names, " "); got != want {
				t.Errorf("there are results for %s", got)
			}
			if want := "embedded, on loopback, quorum 2 of 3, TTL 2s"; rep.Cluster != want {
				t.Errorf("the cluster is %q, not %q", rep.Cluster, want)
			}
		})
	}
}

func TestBenchSaysHowItMeasures(t *testing.T) {
	t.Parallel()
	bench := start(t, "bench", "--rounds", "1", "--only", "graceful")
	bench.exits(0)
	out := bench.stdout.all()
	for _, want := range []string{howMeasured, "embedded, on loopback", "rounds", "median", "p99", "graceful hand-over, one id: child returned -> running elsewhere"} {
		if !strings.Contains(out, want) {
			t.Errorf("the report does not say %q", want)
		}
	}
	if got, want := bench.stderr.all(), "measuring graceful (graceful hand-over, one id: child returned -> running elsewhere)\n"; got != want {
		t.Errorf("on standard error it says %q, not %q", got, want)
	}
}

func TestBenchSaysThatTheClusterOfTheUserIsNotThere(t *testing.T) {
	t.Parallel()
	bench := start(t, "bench", "--rounds", "1", "--only", "graceful", "--cluster", "gossip://127.0.0.1:1?label="+label(t))
	bench.exits(1)
	if got, want := bench.stderr.all(), "have not found each other within 30s; is a node of the cluster up where its URL says?\n"; !strings.HasSuffix(got, want) {
		t.Errorf("on standard error it says %q, not %q", got, want)
	}
}

func TestBenchMeasuresTheClusterOfTheUser(t *testing.T) {
	t.Parallel()
	urls := clusterURLs(t, 1)
	node := startNode(t, urls[0], forever)
	node.stdout.next("hello runs on")
	bench := start(t, "bench", "--rounds", "1", "--only", "graceful,kill", "--json", "--cluster", urls[0])
	bench.exits(0)
	for _, name := range []string{"node-1", "node-2", "node-3"} {
		node.stderr.has("node joined", "peer="+name)
	}
	if n := node.stdout.count("hello runs on"); n != 1 {
		t.Errorf("bench has moved the command of the user: it started %d times", n)
	}
}
