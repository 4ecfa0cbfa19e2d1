package gossip_test

import (
	"errors"
	"net"
	"testing"
	"time"

	"highlander"
	"highlander/gossip"
)

// None of these clusters has a failure detector: what is noticed here, the
// tripwire has noticed. A member that is merely silent stays a member.
func blindCluster(t *testing.T, n int) (*world, []*gossip.Cluster) {
	t.Helper()
	return blindClusterOf(t, n, gossip.Config{})
}

func blindClusterOf(t *testing.T, n int, cfg gossip.Config) (*world, []*gossip.Cluster) {
	t.Helper()
	w := watchfulWorld(t)
	w.config = cfg
	w.tune = noFailureDetector
	nodes := w.cluster(n)
	w.watchAll(nodes...)
	return w, nodes
}

// watchAll waits until the tripwires between all nodes, four at the most, are
// set.
func (w *world) watchAll(nodes ...*gossip.Cluster) {
	w.t.Helper()
	for _, c := range nodes {
		for _, other := range nodes {
			if c != other && !c.AwaitWatch(w.t.Context(), other.Node()) {
				w.t.Fatalf("%s does not watch %s", c.Node(), other.Node())
			}
		}
	}
}

func TestTripwireNoticesACrash(t *testing.T) {
	t.Parallel()
	w, nodes := blindCluster(t, 2)
	s := newStage(t, "id")
	s.wrap(nodes[0])
	s.runsOn(nodes[0])
	s.wrap(nodes[1])
	nodes[0].Crash() // of two, the other one has no majority to pass it over
	s.runsOn(nodes[1])
	w.see(1, nodes[1])
}

// A refused connection says that the process is gone, but not yet what it ran.
func TestTripwireLeavesAGuardedNodeToItsGuard(t *testing.T) {
	t.Parallel()
	w, nodes := blindClusterOf(t, 2, gossip.Config{Guarded: true}.WithPatience(time.Hour))
	s := newStage(t, "id")
	s.wrap(nodes[0])
	s.runsOn(nodes[0])
	s.wrap(nodes[1])
	frame, _, _ := nodes[0].Certificate()
	nodes[0].Crash()
	w.awaitLog("the process of a node is gone", 1)
	if _, err := nodes[1].Holders(t.Context()); err != nil { // what was logged has been carried out
		t.Fatal(err)
	}
	if members := nodes[1].Members(); len(members) != 2 {
		t.Errorf("before its guard has testified, %v are in view", members)
	}
	if !testify(t, nodes[1], frame) {
		t.Fatal("the certificate is not confirmed")
	}
	s.runsOn(nodes[1])
	w.see(1, nodes[1])
}

// The guard may have been killed, too.
func TestTripwireDoesNotWaitForAGuardForEver(t *testing.T) {
	t.Parallel()
	w, nodes := blindClusterOf(t, 2, gossip.Config{Guarded: true})
	s := newStage(t, "id")
	s.wrap(nodes[0])
	s.runsOn(nodes[0])
	s.wrap(nodes[1])
	nodes[0].Crash()
	s.runsOn(nodes[1])
	w.see(1, nodes[1])
	w.awaitLog("the guard of a node that is gone says nothing", 1)
}

// Not everybody watches everybody: the word goes round.
func TestTripwireTellsThoseWhoDoNotWatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nodes := w.cluster(8)
	for _, watcher := range nodes[4:7] { // the three before the last one
		if !watcher.AwaitWatch(t.Context(), nodes[7].Node()) {
			t.Fatalf("%s does not watch %s", watcher.Node(), nodes[7].Node())
		}
	}
	if nodes[0].AwaitWatch(t.Context(), nodes[7].Node()) {
		t.Fatal("the first node watches the last one, so this test shows nothing")
	}
	nodes[7].Crash()
	w.see(7, nodes[:7]...)
}

func TestTripwireBrokenStreamToALiveNodeChangesNothing(t *testing.T) {
	t.Parallel()
	w, nodes := blindCluster(t, 3)
	l := acquire(t, nodes[0], "id")
	for range 5 {
		for _, c := range nodes[1:] {
			w.faults[c].Break(nodes[0].Addr())
		}
		passRound(t, nodes)
	}
	w.see(3, nodes...)
	held(t, l)
	if gone := w.logged("is gone"); len(gone) > 0 {
		t.Errorf("a node was taken for gone: %s", gone)
	}
}

// A firewall that refuses connections looks like a process that has ended. The
// node takes it back with its own word, and of the holders there may be then
// one is left.
func TestTripwireMisledByAFirewall(t *testing.T) {
	t.Parallel()
	w, nodes := blindCluster(t, 3)
	s := newStage(t, "id")
	s.wrap(nodes[0])
	s.runsOn(nodes[0])
	s.wrap(nodes[1])
	s.wrap(nodes[2])
	for _, c := range nodes[1:] {
		w.faults[c].Refuse(nodes[0].Addr())
		w.faults[c].Break(nodes[0].Addr())
	}
	w.awaitLog("is alive", 2)
	w.see(3, nodes...)
	for _, c := range nodes[1:] {
		w.faults[c].Refuse()
	}
	s.oneRuns()
	passRound(t, nodes)
	s.oneRuns()
	for _, c := range nodes {
		for _, cause := range s.endedBy(c.Node()) {
			if !errors.Is(cause, highlander.ErrConflict) {
				t.Errorf("the child on %s ended with %v, want ErrConflict", c.Node(), cause)
			}
		}
	}
}

// A node whose port refuses streams all the time answers in packets.
func TestTripwireTakesBackThroughPackets(t *testing.T) {
	t.Parallel()
	w, nodes := blindCluster(t, 2)
	w.faults[nodes[1]].Refuse(nodes[0].Addr())
	w.faults[nodes[1]].Break(nodes[0].Addr())
	w.awaitLog("is alive", 1)
	w.see(2, nodes...)
	if !w.faults[nodes[1]].AwaitRefusals(t.Context(), 3) {
		t.Fatal("nobody dials the node")
	}
	w.faults[nodes[1]].Refuse()
	passRound(t, nodes)
	if gone := w.logged("is gone"); len(gone) != 1 {
		t.Errorf("the node was taken for gone %d times, though its port was never reached since: %s", len(gone), gone)
	}
}

// Somebody else at its address proves that a process is gone, even to those who
// never had the time to dial while nobody was there.
func TestTripwireAnotherIncarnationIsProof(t *testing.T) {
	t.Parallel()
	w, nodes := blindCluster(t, 3)
	w.faults[nodes[1]].Redirect(nodes[0].Addr(), nodes[2].Addr())
	w.faults[nodes[1]].Break(nodes[0].Addr())
	w.awaitLog("another process answers at its address", 1)
	w.awaitLog("is alive", 2) // packets reach it all the same
	w.see(3, nodes...)
}

// A node that joins hears of those that died a moment ago.
func TestTripwireTellsThoseWhoCome(t *testing.T) {
	t.Parallel()
	w, nodes := blindCluster(t, 2)
	nodes[0].Crash()
	w.see(1, nodes[1])
	late := w.join("late", nodes[1])
	w.see(2, late, nodes[1])
	s := newStage(t, "id")
	s.wrap(late)
	s.runsOn(late)
}

func TestRestartOnTheSamePortIsANewNode(t *testing.T) {
	t.Parallel()
	w, nodes := blindCluster(t, 2)
	first := acquire(t, nodes[0], "id")
	addr := nodes[0].Addr()
	nodes[0].Crash()
	again, err := w.tryJoinAs(t.Context(), w.config.Meeting(), bind(t, portOf(t, addr)), "n00", nodes[1].Addr())
	if err != nil {
		t.Fatal(err)
	}
	w.see(2, again, nodes[1])
	if again.Node() == nodes[0].Node() {
		t.Errorf("the restarted node is %s again", again.Node())
	}
	second := acquire(t, again, "id")
	if second.Token() <= first.Token() {
		t.Errorf("token %d after %d, want it to grow", second.Token(), first.Token())
	}
}

func portOf(t testing.TB, addr string) int {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return a.Port
}
