package highlandertest

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"highlander"
	"highlander/internal/pulse"
)

// Fixture is a cluster of one engine for TestCluster to try. Its functions are
// called from the goroutine of the test, one at a time, and report trouble with
// t.Fatal. Those that may be nil say so; the checks that need them are then
// skipped, with the reason.
type Fixture struct {
	// Node opens one more node of the cluster, connected to those opened
	// before. The suite opens a, b and c, some checks a fourth, and some open a
	// name again after its node has ended. It closes each node, unless it
	// crashed it.
	Node func(t *testing.T, name string) highlander.Cluster

	// Waiting returns how many calls of Acquire, on all nodes together, wait
	// for id in a place that a later Acquire on any node comes after. The
	// holder does not count. Nil for an engine that is not first come, first
	// served.
	Waiting func(t *testing.T, id string) int

	// Crash ends a node as SIGKILL ends a process: nothing is released, nobody
	// is told. It also sees to it that nothing of the node is left running in
	// the process of the test, but calls of Acquire whose context has not ended.
	// The suite does not call the node again. Nil if there is no way to do that.
	Crash func(t *testing.T, node highlander.Cluster)

	// TTL is how long a lease lasts without renewal; zero for an engine whose
	// leases do not run out. It is best short, as a crash is waited out; two
	// fifths of it must do for a StopWithin.
	TTL time.Duration

	// Cut cuts the network between a node and all others, and whatever the
	// engine needs, until mend is called, which may be called again. Nil if TTL is
	// zero or there is no way to do that.
	Cut func(t *testing.T, node highlander.Cluster) (mend func())

	// ManyIDs is how many ids the check of many ids uses, for an engine that is
	// made for fewer than a thousand; zero for a thousand.
	ManyIDs int

	// Server is the server that the engine keeps its leases on. Nil for an engine
	// without one. If it is there, TTL is not zero.
	Server *Server
}

// patience is how long a single step may take. It is a safety net: no step is
// expected to need a noticeable part of it.
var patience = 60 * time.Second

// check is one behaviour of an engine.
type check struct {
	name string
	run  func(*script)
}

// TestCluster checks that an engine behaves as highlander.Cluster says. The
// checks under Leases share one cluster of three nodes; those under Nodes,
// which end nodes, Expiry, for engines whose leases run out, and Server, for those
// that keep them on a server, get a cluster each. newFixture makes an empty cluster, which
// must not meet an earlier one (another schema, prefix, port), and cleans up
// after it with t.Cleanup; when that has run, no goroutine may be left that was
// not there before newFixture. So TestCluster must not run in parallel with
// other tests.
//
// With -short, the check of many ids uses a hundred instead of a thousand, unless
// the fixture says how many.
func TestCluster(t *testing.T, newFixture func(t *testing.T) Fixture) {
	t.Run("Leases", func(t *testing.T) {
		shared := open(t, newFixture)
		for _, check := range leaseChecks {
			t.Run(check.name, func(t *testing.T) { check.run(shared.sub(t)) })
		}
	})
	t.Run("Nodes", func(t *testing.T) {
		for _, check := range nodeChecks {
			t.Run(check.name, func(t *testing.T) { check.run(open(t, newFixture)) })
		}
	})
	t.Run("Expiry", func(t *testing.T) {
		if newFixture(t).TTL == 0 {
			t.Skip("Fixture.TTL is zero: the leases of this engine do not run out")
		}
		for _, check := range expiryChecks {
			t.Run(check.name, func(t *testing.T) { check.run(open(t, newFixture)) })
		}
	})
	t.Run("Server", func(t *testing.T) {
		server := newFixture(t).Server
		if server == nil {
			t.Skip("Fixture.Server is nil: this engine keeps its leases on no server")
		}
		for _, check := range serverChecks(server) {
			t.Run(check.name, func(t *testing.T) { check.run(open(t, newFixture)) })
		}
	})
}

var leaseChecks = []check{
	{"one node at a time holds an id", oneNodeAtATime},
	{"two acquirers in one process compete", twoInOneProcess},
	{"release hands over", releaseHandsOver},
	{"first come first served across nodes", firstComeAcrossNodes},
	{"first come first served within a process", firstComeWithinProcess},
	{"a released lease is done with ErrClosed", releasedLeaseIsDone},
	{"AfterFunc runs after the end", afterFuncRuns},
	{"Expires is zero where leases do not run out", leasesLast},
	{"release is idempotent", releaseIsIdempotent},
	{"release may be called concurrently", releaseConcurrently},
	{"tokens only grow", tokensGrow},

	{"an ended context acquires nothing", endedContext},
	{"cancel ends the wait with the cause", cancelEndsWait},
	{"cancel leaves the queue", cancelLeavesQueue},
	{"cancel during a hand-over strands no lease", cancelDuringHandOver},

	{"odd ids work and are distinct", oddIDs},
	{"bad ids are refused", badIDs},
	{"bad options are refused", badOptions},

	{"lookup shows the holder on every node", lookupShowsHolder},
	{"lookup follows a hand-over", lookupFollows},
	{"holders are sorted and complete", holdersSorted},
	{"node names are unique", nodeNamesUnique},

	{"many ids at once", manyIDs},
	{"random load keeps one holder", hammer},
}

var nodeChecks = []check{
	{"close ends leases and hands over", closeHandsOver},
	{"close ends waiting acquires", closeEndsWaits},
	{"close is idempotent", closeIsIdempotent},
	{"close during acquires leaves none behind", closeDuringAcquires},
	{"a closed cluster says ErrClosed", closedSaysSo},
	{"a node that comes late sees holders and queues", lateNode},
	{"a node that returns is another node", returningNode},
	{"a crashed holder is replaced by one node", crashedHolder},
	{"all ids of a crashed node are taken over", crashedNode},
	{"a crashed waiter is passed over", crashedWaiter},
}

var expiryChecks = []check{
	{"a lease is renewed", renewedLease},
	{"StopWithin that does not fit is refused", longStopRefused},
	{"a holder that is cut off is told in time", cutHolderTold},
	{"a node that is cut off gets nothing", cutMinority},
}

// serverChecks are those for a server, with one for each harm that can be done.
func serverChecks(server *Server) []check {
	checks := []check{
		{"a short hang of the server costs no lease", shortHang},
		{"a short restart of the server costs no lease", shortRestart},
		{"the server restarts", serverRestarts},
		{"the server hangs", serverHangs},
		{"the credentials are denied", credentialsDenied},
		{"what the holder sends is lost", holderUnheard},
		{"what the holder is sent is lost", holderDeaf},
		{"what a waiter is sent is lost", waiterDeaf},
	}
	for i := range server.Harm {
		checks = append(checks, check{"harm to a lease: " + server.Harm[i].Name, func(s *script) { harmed(s.fixture.Server.Harm[i])(s) }})
	}
	return checks
}

// open starts a script with a cluster of its own, with nodes a, b and c. At the
// end, after everything else, it looks for goroutines left behind.
func open(t *testing.T, newFixture func(t *testing.T) Fixture) *script {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		if t.Failed() || t.Skipped() {
			return // a step that hangs leaves goroutines, and was reported
		}
		var left error
		for end := time.Now().Add(patience); time.Now().Before(end); {
			if left = goleak.Find(before); left == nil { // tries again for a while
				return
			}
		}
		t.Errorf("goroutines were left behind: %v", left)
	})
	beat := pulse.Start()
	t.Cleanup(beat.Stop)
	f := newFixture(t)
	if f.Node == nil {
		t.Fatal("highlandertest: Fixture.Node is nil; the suite needs it to open nodes")
	}
	s := newScript(t, f)
	s.pulse = beat
	for _, name := range []string{"a", "b", "c"} {
		s.nodes = append(s.nodes, s.open(name))
	}
	return s
}
