package gossip

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"highlander/internal/nodename"

	"github.com/hashicorp/memberlist"
)

var quorumRules = rules{quorum: 2, voters: 3, ttl: 3 * time.Second}

// badMeta is made from a good one.
var badMeta = []struct {
	want string
	make func(good []byte) []byte
}{
	{"meta is empty", func([]byte) []byte { return nil }},
	{"meta of version 111, this is version 1", func([]byte) []byte { return []byte{'o'} }},
	{"meta of version 2, this is version 1", func(b []byte) []byte { b[0] = 2; return b }},
	{"meta has 45 bytes, not 46", func(b []byte) []byte { return b[:45] }},
	{"meta has 47 bytes, not 46", func(b []byte) []byte { return append(b, 0) }},
	{"meta has unknown flags 0x4", func(b []byte) []byte { b[1] = 4; return b }},
	{"meta has rules that nobody can have: observer true, quorum 2 of 3, TTL 3000000000 ns", func(b []byte) []byte { b[1] = 1; return b }},
	{"meta has rules that nobody can have: observer false, quorum 0 of 3, TTL 3000000000 ns", func(b []byte) []byte { b[3] = 0; return b }},
	{"meta has rules that nobody can have: observer false, quorum 2 of 0, TTL 3000000000 ns", func(b []byte) []byte { b[5] = 0; return b }},
	{"meta has rules that nobody can have: observer false, quorum 2 of 3, TTL 0 ns", func(b []byte) []byte { clear(b[6:14]); return b }},
	{"meta has rules that nobody can have: observer false, quorum 2 of 3, TTL -9223372033854775808 ns", func(b []byte) []byte { b[6] = 0x80; return b }},
}

func TestMetaSaysWhatIsWrong(t *testing.T) {
	for _, test := range badMeta {
		_, err := parseMeta(test.make(nodeMeta{rules: quorumRules}.append(nil)))
		if err == nil || err.Error() != test.want {
			t.Errorf("got  %v\nwant %s", err, test.want)
		}
	}
}

// FuzzMeta: there is one encoding of each meta, and nothing else is one.
func FuzzMeta(f *testing.F) {
	for _, m := range []nodeMeta{{}, {observer: true}, {guarded: true}, {rules: quorumRules}, {rules: rules{65535, 65535, 1}, certificate: [32]byte{0: 1, 31: 2}}} {
		f.Add(m.append(nil))
	}
	for _, bad := range badMeta {
		f.Add(bad.make(nodeMeta{rules: quorumRules}.append(nil)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMeta(b)
		if err == nil && !bytes.Equal(m.append(nil), b) {
			t.Errorf("%x is read as %+v", b, m)
		}
	})
}

func TestNodeOfOtherRulesIsRefused(t *testing.T) {
	available, observer, quorum := nodeMeta{}, nodeMeta{observer: true}, nodeMeta{rules: quorumRules}
	with := func(change func(*rules)) nodeMeta {
		other := quorum
		change(&other.rules)
		return other
	}
	for _, test := range []struct {
		self, other nodeMeta
		want        string // empty: it may take part
	}{
		{available, available, ""},
		{quorum, quorum, ""},
		{quorum, nodeMeta{rules: quorumRules, certificate: [32]byte{1}}, ""},
		{quorum, observer, ""},
		{observer, quorum, ""},
		{available, quorum, "runs quorum 2 of 3, TTL 3s; this one runs available mode"},
		{quorum, available, "runs available mode; this one runs quorum 2 of 3, TTL 3s"},
		{quorum, with(func(r *rules) { r.quorum = 3 }), "runs quorum 3 of 3, TTL 3s; this one runs quorum 2 of 3, TTL 3s"},
		{quorum, with(func(r *rules) { r.voters = 2 }), "runs quorum 2 of 2, TTL 3s; this one runs quorum 2 of 3, TTL 3s"},
		{quorum, with(func(r *rules) { r.ttl++ }), "runs quorum 2 of 3, TTL 3.000000001s; this one runs quorum 2 of 3, TTL 3s"},
	} {
		a, text := metaAgent(test.self)
		err := a.NotifyAlive(metaNode(test.other.append(nil)))
		if want := "node x#0000000000000001 " + test.want; test.want == "" && err != nil || test.want != "" && (err == nil || err.Error() != want) {
			t.Errorf("got  %v\nwant %s", err, test.want)
		}
		if dropped, refused := a.c.dropped.total() == 1, test.want != ""; dropped != refused {
			t.Errorf("%v meets %v: %d are counted", test.self, test.other, a.c.dropped.total())
		}
		if logged := strings.Contains(text.String(), "level=ERROR") && strings.Contains(text.String(), test.want); logged != (test.want != "") {
			t.Errorf("%v meets %v: the log says %q", test.self, test.other, text)
		}
	}
}

func TestRefusedNodesAreLoggedOnceAMinuteEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, text := metaAgent(nodeMeta{})
		meet := func(name string, incarnation uint64, r rules) {
			n := metaNode(nodeMeta{rules: r}.append(nil))
			n.Name = nodename.Join(name, incarnation)
			a.NotifyAlive(n)
		}
		others := quorumRules
		others.ttl++
		for i := range uint64(150) {
			meet("x", 3+i, quorumRules) // started again and again
			meet("y", 1, quorumRules)
			if i == 20 {
				meet("y", 1, others)
			}
			time.Sleep(time.Second) // virtual
		}
		for what, want := range map[string]int{"node x#": 3, "node y#": 4, "TTL 3.000000001s": 1, "level=ERROR": 7} {
			if lines := strings.Count(text.String(), what); lines != want {
				t.Errorf("%d lines with %q in 150 s, want %d:\n%s", lines, what, want, text)
			}
		}
		if got := a.c.dropped.total(); got != 301 {
			t.Errorf("counted %d, want 301", got)
		}
	})
}

func TestRefusedNodesOfManyNamesAreLoggedWithinBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, text := metaAgent(nodeMeta{})
		for i := range uint64(1000) {
			n := metaNode(nodeMeta{rules: quorumRules}.append(nil))
			n.Name = nodename.Join(fmt.Sprint("x", i), 1)
			a.NotifyAlive(n)
		}
		if lines := strings.Count(text.String(), "\n"); lines != maxRefusals || len(a.c.dropped.refusals) != maxRefusals {
			t.Errorf("%d lines, %d refusals kept, want %d", lines, len(a.c.dropped.refusals), maxRefusals)
		}
	})
}

func TestNodeWithBadMetaIsRefused(t *testing.T) {
	a, _ := metaAgent(nodeMeta{})
	if err, want := a.NotifyAlive(metaNode([]byte("o"))), `node "x#0000000000000001": meta of version 111, this is version 1`; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// metaAgent is as much of an agent as is asked whether a node may join.
func metaAgent(self nodeMeta) (*agent, *bytes.Buffer) {
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(&text, nil))
	return &agent{self: 2, log: log, c: &Cluster{name: "self#0000000000000002", meta: self, dropped: &dropLog{log: log}}}, &text
}

func metaNode(meta []byte) *memberlist.Node {
	return &memberlist.Node{Name: "x#0000000000000001", Addr: net.IPv4(127, 0, 0, 1), Port: 7946, Meta: meta}
}
