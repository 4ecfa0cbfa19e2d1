package gossip_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"highlander"
	"highlander/gossip"
	"highlander/highlandertest"
)

var encrypted = gossip.Config{Keys: [][]byte{bytes.Repeat([]byte{7}, 32)}}

// The suite looks at all goroutines of its process.
func TestConformance(t *testing.T) {
	t.Parallel()
	t.Run("Plain", func(t *testing.T) { alone(t, func(t *testing.T) { conformance(t, gossip.Config{}) }) })
	t.Run("Encrypted", func(t *testing.T) { alone(t, func(t *testing.T) { conformance(t, encrypted) }) })
}

func conformance(t *testing.T, cfg gossip.Config) {
	highlandertest.TestCluster(t, func(t *testing.T) highlandertest.Fixture {
		f := &fixture{world: newWorld(t)}
		f.world.config = cfg
		return highlandertest.Fixture{Node: f.node, Waiting: f.waiting, Crash: f.crash, ManyIDs: suiteIDs}
	})
}

// With seven voters the suite takes over a minute. So it runs once with the race
// detector, and once encrypted without it: under the detector, which makes
// encryption many times as slow, voters on two busy cores would miss their beats.
// What encryption has of its own races for TestConformance/Encrypted.
func TestQuorumConformance(t *testing.T) {
	t.Parallel()
	if raceEnabled {
		t.Run("Plain", func(t *testing.T) { alone(t, func(t *testing.T) { quorumConformance(t, gossip.Config{}) }) })
	} else {
		t.Run("Encrypted", func(t *testing.T) { alone(t, func(t *testing.T) { quorumConformance(t, encrypted) }) })
	}
}

// quorumConformance is a cluster of seven voters: the three that the suite opens
// first, one that it may open later, and three witnesses, so that there is a
// quorum of four even when two of them have ended.
func quorumConformance(t *testing.T, cfg gossip.Config) {
	cfg.Quorum, cfg.TTL = 4, 5*time.Second // so that voters on a busy machine may miss a beat
	highlandertest.TestCluster(t, func(t *testing.T) highlandertest.Fixture {
		cfg := cfg
		if strings.HasSuffix(t.Name(), "/Leases") { // no check there waits until a lease has run out
			cfg.TTL = 30 * time.Second
		}
		f := &quorumFixture{fixture: fixture{world: watchfulWorld(t)}}
		f.world.config = cfg
		return highlandertest.Fixture{Node: f.node, Waiting: f.waiting, Crash: f.crash, Cut: f.cut, TTL: cfg.TTL, ManyIDs: suiteIDs}
	})
}

// quorumFixture is a cluster for the conformance suite in quorum mode.
type quorumFixture struct {
	fixture
	opened map[string]*gossip.Cluster // that the suite was not given yet
}

// node opens the first nodes together: none of them is there before the others.
func (f *quorumFixture) node(t *testing.T, name string) highlander.Cluster {
	if f.opened == nil {
		f.opened = map[string]*gossip.Cluster{}
		for _, c := range f.world.quorum("a", "b", "c", "w1", "w2", "w3") {
			f.opened[baseName(c)] = c
		}
	}
	if c := f.opened[name]; c != nil {
		delete(f.opened, name)
		return c
	}
	return f.fixture.node(t, name)
}

func (f *quorumFixture) cut(t *testing.T, node highlander.Cluster) (mend func()) {
	cut, others := pick(f.open(), node.Node())
	f.world.cut([]*gossip.Cluster{cut}, others)
	return f.world.heal
}

// fixture is a cluster for the conformance suite.
type fixture struct{ world *world }

// node opens a node and waits until all see each other: what the suite expects
// of a holder goes for a cluster that agrees on who is in it.
func (f *fixture) node(t *testing.T, name string) highlander.Cluster {
	open := f.open()
	c := f.world.join(name, open...)
	f.world.see(len(open)+1, append(open, c)...)
	return c
}

// open returns the nodes that were neither closed nor crashed.
func (f *fixture) open() []*gossip.Cluster {
	return slices.DeleteFunc(slices.Clone(f.world.nodes), func(c *gossip.Cluster) bool {
		_, err := c.Holders(f.world.t.Context())
		return err != nil
	})
}

// waiting returns how many claims wait, as all nodes see it; -1 while they do
// not agree.
func (f *fixture) waiting(t *testing.T, id string) int {
	count := -1
	for i, c := range f.open() {
		switch known := c.KnownWaiting(id); {
		case i == 0:
			count = known
		case known != count:
			return -1
		}
	}
	return count
}

// crash crashes a node that the others watch, as far as there are tripwires.
func (f *fixture) crash(t *testing.T, c highlander.Cluster) {
	if open := f.open(); f.world.patience > 0 {
		f.world.see(len(open), open...)
		f.world.watchAll(open...)
	}
	c.(*gossip.Cluster).Crash()
}
