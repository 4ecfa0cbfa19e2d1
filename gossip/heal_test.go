package gossip_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"highlander"
	"highlander/gossip"
	"highlander/internal/netfault"
)

// forgetful makes memberlist forget the dead as soon as it can.
func forgetful(mc *memberlist.Config) { mc.GossipToTheDeadTime = time.Nanosecond }

// Trap 29 and complaint 18: a netsplit that lasts longer than memberlist
// remembers the dead heals all the same.
func TestNetsplitHealsAfterTheDeadAreForgotten(t *testing.T) {
	t.Parallel()
	w := watchfulWorld(t)
	w.tune = forgetful
	nodes := w.cluster(4)
	left, right := nodes[:2], nodes[2:]
	w.cut(left, right)
	w.forgotten(2, nodes...)
	w.heal()
	w.see(4, nodes...)
}

// Who was not told to join the other one remembers where it was.
func TestNetsplitHealsBetweenNodesThatAreNoSeeds(t *testing.T) {
	t.Parallel()
	w := watchfulWorld(t)
	w.tune = forgetful
	seed := w.join("seed")
	a, b := w.join("a", seed), w.join("b", seed)
	w.see(3, seed, a, b)
	seed.Close()
	w.see(2, a, b)
	s := newStage(t, "id")
	s.wrap(a)
	s.wrap(b)
	w.cut([]*gossip.Cluster{a}, []*gossip.Cluster{b})
	s.run(2)
	w.forgotten(1, a, b)
	w.heal()
	s.oneRuns()
	w.see(2, a, b)
}

// forgotten waits until memberlist itself knows only of count nodes.
func (w *world) forgotten(count int, nodes ...*gossip.Cluster) {
	w.t.Helper()
	w.see(count, nodes...)
	for _, c := range nodes {
		for end := time.Now().Add(patience); c.KnownToMemberlist() != count; {
			if time.Now().After(end) {
				w.t.Fatalf("memberlist of %s remembers %d nodes, want %d", c.Node(), c.KnownToMemberlist(), count)
			}
		}
	}
}

// A network that loses, repeats and delays packets gives no id to two nodes
// that see each other, and nobody waits for ever.
func TestNoisyNetwork(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nodes := w.cluster(3)
	for _, c := range nodes {
		w.faults[c].SetNoise(netfault.Noise{Lost: 0.2, Doubled: 0.2, MaxDelay: 20 * time.Millisecond})
	}
	for round := range 5 {
		var last highlander.Lease
		for _, c := range nodes {
			l := acquire(t, c, fmt.Sprint("id", round))
			if last != nil && l.Token() <= last.Token() {
				t.Errorf("token %d after %d", l.Token(), last.Token())
			}
			if err := l.Err(); err != nil && !errors.Is(err, highlander.ErrConflict) {
				t.Error(err)
			}
			l.Release(t.Context())
			last = l
		}
	}
}

// Trap 32: a link that is dead in one direction is noticed, and mends.
func TestOneWayCutHeals(t *testing.T) {
	t.Parallel()
	w := watchfulWorld(t)
	nodes := w.cluster(3)
	s := newStage(t, "id")
	for _, c := range nodes {
		s.wrap(c)
	}
	s.oneRuns()
	w.cutOneWay(nodes[:1], nodes[1:])
	for _, c := range nodes[1:] {
		w.seeNot(c, nodes[0])
	}
	s.await("a child among those who hear each other", func() bool { return runningAmong(s, nodes[1:]) == 1 })
	w.heal()
	w.see(3, nodes...)
	s.oneRuns()
	passRound(t, nodes)
	s.oneRuns()
}
