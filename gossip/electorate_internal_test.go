package gossip

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"highlander/internal/claims"
	"highlander/internal/nodename"
)

// watched is as much of an agent as watches the voters: node 1, called a.
type watched struct {
	*agent
	text bytes.Buffer
}

// watch makes one, in the virtual time of a synctest bubble.
func watch(r rules) *watched {
	w := &watched{}
	begin := time.Now()
	log := slog.New(slog.NewTextHandler(&w.text, nil))
	c := &Cluster{name: nodename.Join("a", 1), log: log, meta: nodeMeta{rules: r}}
	w.agent = &agent{
		c: c, log: log, self: 1, nodes: map[claims.Node]*node{}, changed: make(chan struct{}),
		up: func() time.Duration { return time.Since(begin) + time.Hour },
	}
	w.machine = claims.New(w.instant(), claims.Config{Self: 1, Name: "a", Quorum: r.quorum, Voters: r.voters, TTL: r.ttl})
	w.viewChanged()
	return w
}

// comes has a node come into view and say something.
func (w *watched) comes(id claims.Node, voter string) {
	w.nodes[id] = &node{id: id, name: nodename.Join(voter, uint64(id)), voter: voter}
	w.machine.NodeUp(w.instant(), id, voter, true)
	w.machine.Receive(w.instant(), claims.Message{From: id, To: 1})
	w.viewChanged()
}

// goes has a node go out of view without a word.
func (w *watched) goes(id claims.Node) {
	delete(w.nodes, id)
	w.machine.NodeDown(w.instant(), id)
	w.viewChanged()
}

// passes lets virtual time pass.
func (w *watched) passes(seconds int) {
	for range seconds {
		time.Sleep(tickEvery)
		w.machine.Tick(w.instant())
		w.tickQuorum()
	}
}

// logged returns how many lines of the log contain something.
func (w *watched) logged(text string) int { return strings.Count(w.text.String(), text) }

// The one that crashed counts for a while after the new one is there.
func TestVoterThatIsStartedAnewSharesNoName(t *testing.T) {
	for _, ttl := range []time.Duration{time.Second, DefaultTTL, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			w := watch(rules{quorum: 2, voters: 3, ttl: ttl})
			w.comes(2, "b")
			w.comes(3, "c")
			w.passes(1)
			w.goes(3)
			w.comes(4, "c")
			if w.machine.Shared() == nil {
				t.Fatalf("TTL %v: the one that crashed does not count at all", ttl)
			}
			w.passes(120)
			if w.logged("share a name") != 0 {
				t.Errorf("TTL %v: it is an error:\n%s", ttl, &w.text)
			}
			w.comes(5, "c")
			w.passes(120)
			if w.logged("share a name") == 0 {
				t.Errorf("TTL %v: two that live share a name, and it is no error", ttl)
			}
		})
	}
}

// Voters that were started anew one after the other too fast are in view, and vote
// for nobody yet.
func TestLeaseThatIsNotRenewedNamesWhoDoesNotVote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(rules{quorum: 2, voters: 3, ttl: DefaultTTL})
		w.comes(2, "b")
		w.comes(3, "c")
		w.passes(20)
		c := w.machine.Acquire(w.instant(), "id", "", 0)
		l := &lease{agent: w.agent, id: "id", claim: c, stopWithin: DefaultTTL / 4}
		w.machine.Message(w.instant(), 2, 10)
		w.machine.Receive(w.instant(), claims.Message{From: 2, To: 1, Bind: 1, Back: claims.Back{K: w.up(), Stamp: 1}})
		w.goes(3)
		got := fmt.Sprint(w.whoRenews(w.instant(), l)...)
		if want := fmt.Sprint("votes", 1, "needed", 2, "not_voting", []string{"b"}, "out_of_view", []string{"c"}); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

func TestNoQuorumIsLoggedWhenItLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(rules{quorum: 2, voters: 3, ttl: DefaultTTL})
		w.passes(10)
		w.comes(2, "b")
		w.passes(1)
		w.goes(2) // for a moment
		w.passes(1)
		w.comes(2, "b")
		w.goes(2)
		w.passes(1)
		w.comes(2, "b")
		w.passes(1)
		if w.logged("there is a quorum") != 1 || w.logged("no quorum") != 0 || w.logged("the quorum is back") != 0 {
			t.Errorf("the quorum was there, but for moments:\n%s", &w.text)
		}
		w.goes(2)
		w.passes(10)
		w.comes(2, "b")
		if w.logged(`level=WARN msg="no quorum`) != 1 || w.logged("the quorum is back") != 1 {
			t.Errorf("the quorum was lost and found:\n%s", &w.text)
		}
		w.closing = true
		w.goes(2)
		w.passes(10)
		if w.logged("no quorum") != 1 {
			t.Errorf("this node is leaving:\n%s", &w.text)
		}
	})
}

func TestTooManyVotersAreLoggedAtOnceWhenInView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(rules{quorum: 2, voters: 3, ttl: DefaultTTL})
		for i, name := range []string{"b", "c", "d"} {
			w.comes(claims.Node(2+i), name)
		}
		if w.logged(`level=ERROR msg="there are more voters`) != 1 || w.logged(`in_view="[a b c d]" gone=[]`) != 1 {
			t.Errorf("four are in view:\n%s", &w.text)
		}
		w.goes(4) // who knows where it is
		w.passes(60)
		if w.logged("there are more voters") != 2 || w.logged(`in_view="[a b c]" gone=[d]`) != 1 {
			t.Errorf("one of four is gone:\n%s", &w.text)
		}
		w.machine.Dead(w.instant(), 4)
		w.passes(10)
		if w.logged("there are no more voters") != 1 {
			t.Errorf("one of four is dead:\n%s", &w.text)
		}
		w.passes(60)
		w.goes(3)
		w.comes(6, "e")
		w.machine.Dead(w.instant(), 3)
		w.passes(60)
		if w.logged("there are more voters") != 2 || w.logged("there are no more voters") != 1 {
			t.Errorf("another one takes the place of one that has crashed:\n%s", &w.text)
		}
	})
}
