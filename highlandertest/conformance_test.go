package highlandertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"highlander"
)

// engineVar names the engine that TestConformance runs on. Unset, it is the
// in-memory cluster as it is.
const engineVar = "HIGHLANDERTEST_ENGINE"

func TestConformance(t *testing.T) {
	name, ok := os.LookupEnv(engineVar)
	if !ok {
		TestCluster(t, memory)
		t.Run("Expiring", func(t *testing.T) { virtuallyWithoutServer(t, expiring) })
		t.Run("Virtual", func(t *testing.T) {
			virtually(t, "Expiry", expiryChecks, onServer(sound))
			virtually(t, "Server", serverChecks(onServer(sound)(t).Server), onServer(sound))
		})
		return
	}
	patience = 2 * time.Second // of virtual time: how busy the machine is makes no difference
	for _, engine := range brokenEngines {
		if engine.name == name {
			if strings.HasPrefix(engine.check, "Server/") {
				broken := func(t *testing.T) Fixture { return engine.spoil(Fixture{}) }
				virtually(t, "Server", serverChecks(broken(t).Server), broken)
				return
			}
			good := memory
			if strings.HasPrefix(engine.check, "Expiry/") {
				good = expiring
			}
			broken := func(t *testing.T) Fixture { return engine.spoil(good(t)) }
			virtuallyWithoutServer(t, broken)
			return
		}
	}
	t.Fatalf("%s=%q: no such engine", engineVar, name)
}

// virtually runs a group of checks, each in a bubble of virtual time.
func virtually(t *testing.T, group string, checks []check, newFixture func(*testing.T) Fixture) {
	t.Run(group, func(t *testing.T) {
		for _, check := range checks {
			t.Run(check.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { check.run(open(t, newFixture)) })
			})
		}
	})
}

// virtuallyWithoutServer runs all groups of checks but that for servers.
func virtuallyWithoutServer(t *testing.T, newFixture func(*testing.T) Fixture) {
	virtually(t, "Leases", leaseChecks, newFixture)
	virtually(t, "Nodes", nodeChecks, newFixture)
	virtually(t, "Expiry", expiryChecks, newFixture)
}

// TestSuiteFailsBrokenEngines tests the suite: each engine is wrong in one way,
// and the check that is there for it must fail, and say what is wrong.
func TestSuiteFailsBrokenEngines(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	outs, errs := make([]string, len(brokenEngines)), make([]error, len(brokenEngines))
	var group sync.WaitGroup
	slots := make(chan struct{}, 4)
	for i, engine := range brokenEngines {
		pattern := "^TestConformance$/^" + strings.ReplaceAll(engine.path(), "/", "$/^") + "$"
		cmd := exec.CommandContext(t.Context(), self, "-test.short", "-test.run", pattern)
		cmd.Env = append(os.Environ(), engineVar+"="+engine.name)
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			out, err := cmd.CombinedOutput()
			outs[i], errs[i] = string(out), err
		})
	}
	group.Wait()
	for i, engine := range brokenEngines {
		t.Run(engine.name, func(t *testing.T) { engine.mustHaveFailed(t, outs[i], errs[i]) })
	}
}

// TestEveryCheckCanFail looks for checks that no broken engine is for.
func TestEveryCheckCanFail(t *testing.T) {
	fails := map[string]bool{}
	for _, engine := range brokenEngines {
		fails[engine.check] = true
	}
	for group, checks := range map[string][]check{"Leases": leaseChecks, "Nodes": nodeChecks, "Expiry": expiryChecks, "Server": serverChecks(onServer(sound)(t).Server)} {
		for _, check := range checks {
			if !fails[group+"/"+check.name] {
				t.Errorf("no broken engine fails %s/%s", group, check.name)
			}
		}
	}
}

// brokenEngine is the in-memory cluster, spoilt in one way.
type brokenEngine struct {
	name  string
	spoil func(Fixture) Fixture
	check string // that must fail
	says  string // how; several ways, of which one is enough, stand between bars
}

// path is the check in the words of go test.
func (e brokenEngine) path() string { return strings.ReplaceAll(e.check, " ", "_") }

func (e brokenEngine) mustHaveFailed(t *testing.T, out string, err error) {
	var exit *exec.ExitError
	contains := func(text string) bool { return strings.Contains(out, text) }
	want := 1
	if contains("panic: deadlock: main bubble goroutine has exited but blocked goroutines remain") {
		want = 2 // this is how a bubble ends in which an engine has left some
	}
	if !errors.As(err, &exit) || exit.ExitCode() != want {
		t.Fatalf("the suite ended with %v, want exit status %d\n%s", err, want, out)
	}
	if !contains("--- FAIL: TestConformance/" + e.path() + " (") {
		t.Errorf("another check than %q failed:\n%s", e.check, out)
	}
	if !slices.ContainsFunc(strings.Split(e.says, "|"), contains) {
		t.Errorf("the suite failed without saying %q:\n%s", e.says, out)
	}
}

var brokenEngines = []brokenEngine{
	{"each node for itself", eachForItself, "Leases/one node at a time holds an id", "two holders"},
	{"no exclusion within a process", spoilNodes(noExclusionInside), "Leases/two acquirers in one process compete", "two holders"},
	{"one in fifty acquires is let through", spoilNodes(letThrough(50)), "Leases/random load keeps one holder", "two holders"},
	{"one id in seventy is let through", spoilNodes(letThrough(70)), "Leases/many ids at once", "two holders"},
	{"ids beyond the sixtieth are not served", spoilNodes(limited(60)), "Leases/many ids at once", "waited in vain: round 1: one more of 100 ids is held, after"},

	{"release does nothing", spoilLeases(func(l *spoiltLease) { l.release = func(context.Context) error { return nil } }), "Leases/release hands over", "waited in vain: b#1.Acquire"},
	{"release leaves Done open", spoilLeases(openDone), "Leases/a released lease is done with ErrClosed", "Done is open after Release"},
	{"release leaves no reason", spoilLeases(func(l *spoiltLease) { l.err = func() error { return nil } }), "Leases/a released lease is done with ErrClosed", "Err is <nil>, want ErrClosed"},
	{"a lease has a reason while it is held", spoilLeases(func(l *spoiltLease) { l.err = func() error { return highlander.ErrClosed } }), "Leases/a released lease is done with ErrClosed", "want nil while it is held"},
	{"a lease is done while it is held", spoilLeases(func(l *spoiltLease) { l.done = closed }), "Leases/a released lease is done with ErrClosed", "Done is closed"},
	{"AfterFunc is hasty", spoilAfterFunc(func(l highlander.Lease, f func()) func() bool {
		f()
		return func() bool { return true }
	}), "Leases/AfterFunc runs after the end", "before Done is closed"},
	{"AfterFunc calls what is stopped", spoilAfterFunc(func(l highlander.Lease, f func()) func() bool {
		stop := afterDone(l, f)
		return func() bool {
			f()
			return stop()
		}
	}), "Leases/AfterFunc runs after the end", "that was stopped"},
	{"stop of AfterFunc says that it came too late", spoilAfterFunc(func(l highlander.Lease, f func()) func() bool {
		stop := afterDone(l, f)
		return func() bool { return !stop() }
	}), "Leases/AfterFunc runs after the end", "cannot be stopped"},
	{"AfterFunc forgets", spoilAfterFunc(func(highlander.Lease, func()) func() bool {
		return func() bool { return true }
	}), "Leases/AfterFunc runs after the end", "waited in vain: AfterFunc calls its function after the end"},
	{"AfterFunc is too late after the end", spoilAfterFunc(func(l highlander.Lease, f func()) func() bool {
		if l.Err() != nil {
			return func() bool { return false }
		}
		return afterDone(l, f)
	}), "Leases/AfterFunc runs after the end", "that it is given after the end"},
	{"the second release fails", spoilLeases(failingRelease), "Leases/release is idempotent", "was released before"},
	{"the second release is of the next lease", releaseWhoever, "Leases/release is idempotent", "two holders|Done is closed"},
	{"concurrent releases release the next too", releaseNextToo, "Leases/release may be called concurrently", "two holders|Done is closed"},
	{"release hangs", spoilLeases(func(l *spoiltLease) { l.release = hang }), "Leases/release hands over", "did not return, though its context ended"},

	{"last come first served", lastCome, "Leases/first come first served across nodes", "number 1 in the queue is"},
	{"last come first served inside", lastCome, "Leases/first come first served within a process", "number 1 in the queue is"},

	{"tokens are all the same", spoilLeases(func(l *spoiltLease) { l.token = func() uint64 { return 7 } }), "Leases/tokens only grow", "token does not grow"},
	{"tokens are per node", tokensPerNode, "Leases/tokens only grow", "token does not grow"},

	{"an ended context is ignored while the id is free", spoilNodes(ignoreEndedContext), "Leases/an ended context acquires nothing", "want the cause of the context"},
	{"the cause is lost", spoilNodes(loseCause), "Leases/cancel ends the wait with the cause", "want the cause of the context"},
	{"a wait cannot be ended", spoilNodes(ignoreContext), "Leases/cancel ends the wait with the cause", "waited in vain: a#1.Acquire"},
	{"a cancelled wait stays in the queue", spoilNodes(stayInQueue), "Leases/cancel leaves the queue", "waited in vain: c#1.Acquire"},
	{"a lease that came with the cancel is lost", spoilNodes(strand), "Leases/cancel during a hand-over strands no lease", "waited in vain: a#1.Acquire"},

	{"ids are in lower case", spoilIDs(strings.ToLower), "Leases/odd ids work and are distinct", "waited in vain"},
	{"ids are trimmed", spoilIDs(strings.TrimSpace), "Leases/odd ids work and are distinct", "waited in vain"},
	{"ids are cut", spoilIDs(func(id string) string { return id[:min(len(id), 254)] }), "Leases/odd ids work and are distinct", "waited in vain"},
	{"ids are unescaped", spoilIDs(func(id string) string { return strings.ReplaceAll(id, "%2F", "/") }), "Leases/odd ids work and are distinct", "waited in vain"},
	{"bad ids are mended", spoilIDs(mend), "Leases/bad ids are refused", "want ErrInvalidID"},
	{"long meta is cut", spoilNodes(cutMeta), "Leases/bad options are refused", "Meta that is bad (one byte too long): error is <nil>"},
	{"meta is not looked at", spoilNodes(mendMeta), "Leases/bad options are refused", "Meta that is bad (with NUL): error is <nil>"},
	{"negative StopWithin is taken", spoilNodes(takeNegative), "Leases/bad options are refused", "StopWithin that is bad (negative): error is <nil>"},

	{"lookup knows no meta", spoilHolders(func(h *highlander.Holder) { h.Meta = "" }), "Leases/lookup shows the holder on every node", "want {ID:"},
	{"lookup knows no token", spoilHolders(func(h *highlander.Holder) { h.Token = 0 }), "Leases/lookup shows the holder on every node", "want {ID:"},
	{"lookup knows no time", spoilHolders(func(h *highlander.Holder) { h.Since = time.Time{} }), "Leases/lookup shows the holder on every node", "without Since"},
	{"lookup knows no node", spoilHolders(func(h *highlander.Holder) { h.Node = "" }), "Leases/lookup shows the holder on every node", "waited in vain: a#1 sees that"},
	{"lookup never forgets", spoilNodes(neverForget), "Leases/lookup follows a hand-over", "waited in vain: a#1 sees that b#1 holds"},
	{"lookup shows who released", spoilNodes(neverForget), "Leases/lookup shows the holder on every node", "sees that nobody holds"},
	{"holders are in no order", spoilNodes(reverseHolders), "Leases/holders are sorted and complete", "is not sorted by ID"},
	{"holders are one's own", spoilNodes(ownHolders), "Leases/holders are sorted and complete", "waited in vain: a#1.Holders is complete"},
	{"all nodes have one name", spoilNodes(func(n *spoiltNode) { n.node = func() string { return "node" } }), "Leases/node names are unique", "is empty or taken"},

	{"acquire leaks", spoilNodes(leak), "Nodes/close is idempotent", "goroutines were left behind"},
	{"close does nothing", spoilNodes(func(n *spoiltNode) { n.close = func() error { return nil } }), "Nodes/close ends leases and hands over", "waited in vain: Done of the"},
	{"close leaves leases to run out", spoilNodes(closeKeepsLeases), "Nodes/close ends leases and hands over", "waited in vain: b#1.Acquire"},
	{"close leaves waits", spoilNodes(closeKeepsWaits), "Nodes/close ends waiting acquires", "waited in vain: a#1.Acquire"},
	{"close ends waits with another error", spoilNodes(closeWithOtherError), "Nodes/close ends waiting acquires", "want ErrClosed"},
	{"the second close fails", spoilNodes(closeOnce), "Nodes/close is idempotent", "closed already"},
	{"a closed node acquires", reopen, "Nodes/a closed cluster says ErrClosed", "Acquire after Close: error is"},
	{"a closed node looks up", spoilNodes(lookupAfterClose), "Nodes/a closed cluster says ErrClosed", "Lookup after Close: error is"},
	{"a closed node has holders", spoilNodes(holdersAfterClose), "Nodes/a closed cluster says ErrClosed", "Holders after Close: error is"},
	{"an acquire survives close", spoilNodes(surviveClose), "Nodes/close during acquires leaves none behind", "outlives its node"},
	{"a late node is alone", lateAlone, "Nodes/a node that comes late sees holders and queues", "waited in vain: d#1 sees that a#1 holds"},
	{"a node comes back with its name", spoilNodes(func(n *spoiltNode) {
		name, _, _ := strings.Cut(n.inner.Node(), "#")
		n.node = func() string { return name }
	}), "Nodes/a node that returns is another node", "has its old name"},
	{"a crash is not noticed", crashUnnoticed, "Nodes/a crashed holder is replaced by one node", "waited in vain: one of"},
	{"a crash makes all hold", crashFreesAll, "Nodes/a crashed holder is replaced by one node", "two holders"},
	{"few ids of a crashed node are taken over", spoilNodes(func(n *spoiltNode) {
		if baseName(n.inner) != "a" {
			limited(10)(n)
		}
	}), "Nodes/all ids of a crashed node are taken over", "waited in vain: b#1.Acquire"},
	{"a crashed waiter keeps its place", crashUnnoticed, "Nodes/a crashed waiter is passed over", "waited in vain: c#1.Acquire"},

	{"leases run out unannounced", spoilExpires(inTTL), "Leases/Expires is zero where leases do not run out", "but Fixture.TTL says"},
	{"Expires is zero", spoilExpires(func(highlander.Lease) time.Time { return time.Time{} }), "Expiry/a lease is renewed", "Expires is zero"},
	{"Expires is over", spoilExpires(func(highlander.Lease) time.Time { return time.Now().Add(-time.Second) }), "Expiry/a lease is renewed", "ago while it is held"},
	{"Expires is too far away", spoilExpires(func(highlander.Lease) time.Time { return time.Now().Add(2 * memoryTTL) }), "Expiry/a lease is renewed", "but leases last 600ms"},
	{"a lease is not renewed", spoilLeases(neverRenew), "Expiry/a lease is renewed", "ago while it is held"},
	{"any StopWithin is taken", spoilNodes(takeLong), "Expiry/StopWithin that does not fit is refused", "error is <nil>"},
	{"a cut holder is not told", spoilLeases(func(l *spoiltLease) { l.done = func() <-chan struct{} { return nil } }), "Expiry/a holder that is cut off is told in time", "waited in vain: Done of"},
	{"a cut holder is told at the end", spoilLeases(tellLate), "Expiry/a holder that is cut off is told in time", "before it runs out, want StopWithin"},
	{"a cut holder is told another reason", spoilLeases(func(l *spoiltLease) { l.err = otherReason(l.Lease) }), "Expiry/a holder that is cut off is told in time", "want ErrLeaseLost"},
	{"a lease is given out before the last one has run out", spoilExpires(func(l highlander.Lease) time.Time { return l.Expires().Add(memoryTTL / 2) }), "Expiry/a holder that is cut off is told in time", "given out"},
	{"Expires goes on after the loss", spoilLeases(driftAfterDone), "Expiry/a holder that is cut off is told in time", "Expires has moved"},
	{"a node that was cut off is lost", cutForEver, "Expiry/a holder that is cut off is told in time", "waited in vain: 1 wait for"},
	{"a node that is cut off elects itself", cutForItself, "Expiry/a node that is cut off gets nothing", "two holders"},

	{"an error is taken for a loss", served(losesOnError), "Server/a short restart of the server costs no lease", "Done is closed"},
	{"an answer that takes long is taken for a loss", served(losesSoon), "Server/a short hang of the server costs no lease", "Done is closed"},
	{"a wait ends with the first error", served(givesUpWaiting), "Server/the server restarts", "waited in vain: somebody holds"},
	{"a holder is told late", served(tellsLate), "Server/the server hangs", "before it runs out, want StopWithin"},
	{"an error is taken for a renewal", served(neverLoses), "Server/the credentials are denied", "two children"},
	{"a lease counts from the answer", served(countsFromTheReply), "Server/what the holder sends is lost", "before the one under"},
	{"a holder is not told at all", served(neverTells), "Server/what the holder sends is lost", "while there is a"},
	{"a renewal counts when it is sent", served(believesInSending), "Server/what the holder is sent is lost", "though the holder has not heard"},
	{"a holder is told something else", served(losesOtherwise), "Server/the server hangs", "want ErrLeaseLost or ErrConflict"},
	{"a deaf waiter goes on taking", served(takesAgain), "Server/what a waiter is sent is lost", "waited in vain: somebody holds"},
	{"a lease that was deleted is free", served(handsOverWhenHarmed), "Server/harm to a lease: deleted", "two children"},
	{"tokens begin anew", served(forgetsTokens), "Server/harm to a lease: deleted", "token does not grow"},
	{"a lease that was overwritten is free", served(takesForeignRows), "Server/harm to a lease: overwritten", "two children"},
}

// memory is the fixture of the in-memory cluster.
func memory(*testing.T) Fixture { return fixtureOf(New()) }

func fixtureOf(c *Cluster) Fixture {
	return Fixture{
		Node:    func(_ *testing.T, name string) highlander.Cluster { return c.Node(name) },
		Waiting: func(_ *testing.T, id string) int { return c.waiting(id) },
		Crash:   func(_ *testing.T, n highlander.Cluster) { c.Crash(baseName(n)) },
	}
}

const memoryTTL = 600 * time.Millisecond

// expiring is the fixture of the in-memory cluster with leases that run out: a
// node that is cut off loses what it holds, and takes no part otherwise.
func expiring(t *testing.T) Fixture {
	c := New()
	f := spoilNodes(runOut)(fixtureOf(c))
	f.TTL = memoryTTL
	f.Cut = func(_ *testing.T, n highlander.Cluster) (mend func()) {
		holders, _ := n.Holders(t.Context())
		held := slices.DeleteFunc(holders, func(h highlander.Holder) bool { return h.Node != n.Node() })
		for _, h := range held {
			c.Expire(h.ID)
		}
		if len(held) > 0 {
			return func() {}
		}
		c.Freeze(baseName(n))
		return sync.OnceFunc(func() { c.Unfreeze(baseName(n)) })
	}
	return f
}

// runOut makes leases of the in-memory cluster end.
func runOut(n *spoiltNode) {
	n.acquire = func(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
		if opts.StopWithin > memoryTTL/2 {
			return nil, fmt.Errorf("StopWithin is %v; at most %v is allowed", opts.StopWithin, memoryTTL/2)
		}
		l, err := n.inner.Acquire(ctx, id, opts)
		if err != nil {
			return nil, err
		}
		return spoilLease(l, func(s *spoiltLease) {
			s.expires = func() time.Time {
				if ends := l.Expires(); !ends.IsZero() {
					return ends
				}
				return inTTL(l)
			}
		}), nil
	}
}

func inTTL(highlander.Lease) time.Time { return time.Now().Add(memoryTTL) }

// baseName is what the test called a node.
func baseName(n highlander.Cluster) string {
	name, _, _ := strings.Cut(n.Node(), "#")
	return name
}

// waiting counts the claims in the queue of an id.
func (c *Cluster) waiting(id string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	count := 0
	if ct := c.contests[id]; ct != nil {
		for _, cl := range ct.claims {
			if cl.token == 0 {
				count++
			}
		}
	}
	return count
}

// spoiltNode is a node whose methods can be replaced.
type spoiltNode struct {
	inner   highlander.Cluster
	node    func() string
	acquire func(context.Context, string, highlander.AcquireOptions) (highlander.Lease, error)
	lookup  func(context.Context, string) (highlander.Holder, error)
	holders func(context.Context) ([]highlander.Holder, error)
	close   func() error
}

func (n *spoiltNode) Node() string { return n.node() }
func (n *spoiltNode) Acquire(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
	return n.acquire(ctx, id, opts)
}
func (n *spoiltNode) Lookup(ctx context.Context, id string) (highlander.Holder, error) {
	return n.lookup(ctx, id)
}
func (n *spoiltNode) Holders(ctx context.Context) ([]highlander.Holder, error) { return n.holders(ctx) }
func (n *spoiltNode) Close() error                                             { return n.close() }

// spoilNodes replaces methods of every node.
func spoilNodes(spoil func(*spoiltNode)) func(Fixture) Fixture {
	return func(f Fixture) Fixture {
		open := f.Node
		f.Node = func(t *testing.T, name string) highlander.Cluster {
			inner := open(t, name)
			n := &spoiltNode{inner, inner.Node, inner.Acquire, inner.Lookup, inner.Holders, inner.Close}
			spoil(n)
			return n
		}
		return f
	}
}

// spoiltLease is a lease whose methods can be replaced.
type spoiltLease struct {
	highlander.Lease
	token   func() uint64
	done    func() <-chan struct{}
	err     func() error
	expires func() time.Time
	release func(context.Context) error
}

func (l *spoiltLease) Expires() time.Time                { return l.expires() }
func (l *spoiltLease) Token() uint64                     { return l.token() }
func (l *spoiltLease) Done() <-chan struct{}             { return l.done() }
func (l *spoiltLease) Err() error                        { return l.err() }
func (l *spoiltLease) Release(ctx context.Context) error { return l.release(ctx) }

// spoilLeases replaces methods of every lease.
func spoilLeases(spoil func(*spoiltLease)) func(Fixture) Fixture {
	return spoilNodes(func(n *spoiltNode) {
		n.acquire = func(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
			l, err := n.inner.Acquire(ctx, id, opts)
			if err != nil {
				return nil, err
			}
			return spoilLease(l, spoil), nil
		}
	})
}

func spoilLease(l highlander.Lease, spoil func(*spoiltLease)) highlander.Lease {
	s := &spoiltLease{l, l.Token, l.Done, l.Err, l.Expires, l.Release}
	spoil(s)
	return s
}

// leaseWithAfterFunc is a lease that has the method that it may have.
type leaseWithAfterFunc struct {
	highlander.Lease
	afterFunc func(highlander.Lease, func()) func() bool
}

func (l leaseWithAfterFunc) AfterFunc(f func()) (stop func() bool) { return l.afterFunc(l.Lease, f) }

// spoilAfterFunc gives every lease an AfterFunc.
func spoilAfterFunc(afterFunc func(highlander.Lease, func()) func() bool) func(Fixture) Fixture {
	return spoilNodes(func(n *spoiltNode) {
		n.acquire = func(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
			l, err := n.inner.Acquire(ctx, id, opts)
			return leaseWithAfterFunc{l, afterFunc}, err
		}
	})
}

// afterDone is AfterFunc as it should be.
func afterDone(l highlander.Lease, f func()) (stop func() bool) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-l.Done()
		cancel()
	}()
	return context.AfterFunc(ctx, f)
}

// spoilIDs has ids stored as something else.
func spoilIDs(change func(string) string) func(Fixture) Fixture {
	return spoilNodes(func(n *spoiltNode) {
		n.acquire = func(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
			return n.inner.Acquire(ctx, change(id), opts)
		}
		n.lookup = func(ctx context.Context, id string) (highlander.Holder, error) {
			h, err := n.inner.Lookup(ctx, change(id))
			h.ID = id
			return h, err
		}
	})
}

// spoilHolders changes what Lookup says.
func spoilHolders(change func(*highlander.Holder)) func(Fixture) Fixture {
	return spoilNodes(func(n *spoiltNode) {
		n.lookup = func(ctx context.Context, id string) (highlander.Holder, error) {
			h, err := n.inner.Lookup(ctx, id)
			change(&h)
			return h, err
		}
	})
}

func closed() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

func hang(context.Context) error { select {} }

func eachForItself(f Fixture) Fixture {
	f.Node = func(_ *testing.T, name string) highlander.Cluster { return New().Node(name) }
	f.Waiting = nil
	return f
}

// noExclusionInside has one lease per process, which all its acquirers share.
func noExclusionInside(n *spoiltNode) {
	var mu sync.Mutex
	own := map[string]highlander.Lease{}
	n.acquire = func(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
		mu.Lock()
		defer mu.Unlock()
		if l := own[id]; l != nil && l.Err() == nil {
			return l, nil
		}
		l, err := n.inner.Acquire(ctx, id, opts)
		own[id] = l
		return l, err
	}
}

// letThrough gives out a lease that nobody gave up, now and then.
func letThrough(every int) func(*spoiltNode) {
	return func(n *spoiltNode) {
		var mu sync.Mutex
		count := 0
		n.acquire = func(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
			mu.Lock()
			count++
			through := count%every == 0
			mu.Unlock()
			if through {
				return New().Node("x").Acquire(ctx, id, opts)
			}
			return n.inner.Acquire(ctx, id, opts)
		}
	}
}

func limited(count int) func(*spoiltNode) {
	return func(n *spoiltNode) {
		var mu sync.Mutex
		ids := map[string]bool{}
		n.acquire = func(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
			mu.Lock()
			served := ids[id] || len(ids) < count
			if served {
				ids[id] = true
			}
			mu.Unlock()
			if !served {
				<-ctx.Done()
				return nil, context.Cause(ctx)
			}
			return n.inner.Acquire(ctx, id, opts)
		}
	}
}

func openDone(l *spoiltLease) {
	l.done = func() <-chan struct{} { return nil }
}

func failingRelease(l *spoiltLease) {
	inner := l.Lease.Release
	var once sync.Once
	l.release = func(ctx context.Context) error {
		err := errors.New("was released before")
		once.Do(func() { err = inner(ctx) })
		return err
	}
}

// releaseWhoever releases by id, not by lease.
func releaseWhoever(f Fixture) Fixture {
	return spoilRelease(f, func(ctx context.Context, l highlander.Lease, holder func() highlander.Lease) error {
		return holder().Release(ctx)
	})
}

// releaseNextToo takes one of several concurrent releases for that of the next.
func releaseNextToo(f Fixture) Fixture {
	return spoilRelease(f, func(ctx context.Context, l highlander.Lease, holder func() highlander.Lease) error {
		if l.Err() == nil {
			return l.Release(ctx)
		}
		time.Sleep(50 * time.Millisecond) // a long way to the server
		return holder().Release(ctx)
	})
}

// spoilRelease replaces Release, and knows the newest lease of the id.
func spoilRelease(f Fixture, release func(ctx context.Context, l highlander.Lease, holder func() highlander.Lease) error) Fixture {
	var mu sync.Mutex
	holders := map[string]highlander.Lease{}
	return spoilNodes(func(n *spoiltNode) {
		n.acquire = func(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
			l, err := n.inner.Acquire(ctx, id, opts)
			if err != nil {
				return nil, err
			}
			mu.Lock()
			defer mu.Unlock()
			holders[id] = l
			return spoilLease(l, func(s *spoiltLease) {
				s.release = func(ctx context.Context) error {
					return release(ctx, l, func() highlander.Lease {
						mu.Lock()
						defer mu.Unlock()
						return holders[id]
					})
				}
			}), nil
		}
	})(f)
}

// lastCome queues in front of the cluster, and serves the newest first.
func lastCome(f Fixture) Fixture {
	var mu sync.Mutex
	held := map[string]bool{}
	stacks := map[string][]chan struct{}{}
	f.Waiting = func(_ *testing.T, id string) int {
		mu.Lock()
		defer mu.Unlock()
		return len(stacks[id])
	}
	free := func(id string) {
		mu.Lock()
		defer mu.Unlock()
		if stack := stacks[id]; len(stack) > 0 {
			close(stack[len(stack)-1])
			stacks[id] = stack[:len(stack)-1]
			return
		}
		held[id] = false
	}
	return spoilNodes(func(n *spoiltNode) {
		n.acquire = func(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
			mu.Lock()
			turn := make(chan struct{})
			if held[id] {
				stacks[id] = append(stacks[id], turn)
			} else {
				held[id] = true
				close(turn)
			}
			mu.Unlock()
			<-turn // it will come: these tests cancel nothing
			l, err := n.inner.Acquire(ctx, id, opts)
			if err != nil {
				free(id)
				return nil, err
			}
			return spoilLease(l, func(s *spoiltLease) {
				var once sync.Once
				s.release = func(ctx context.Context) error {
					defer once.Do(func() { free(id) })
					return l.Release(ctx)
				}
			}), nil
		}
	})(f)
}

// tokensPerNode counts on each node alone.
func tokensPerNode(f Fixture) Fixture {
	return spoilNodes(func(n *spoiltNode) {
		var mu sync.Mutex
		last := map[string]uint64{}
		n.acquire = func(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
			l, err := n.inner.Acquire(ctx, id, opts)
			if err != nil {
				return nil, err
			}
			mu.Lock()
			defer mu.Unlock()
			last[id]++
			token := last[id]
			return spoilLease(l, func(l *spoiltLease) { l.token = func() uint64 { return token } }), nil
		}
	})(f)
}

func ignoreEndedContext(n *spoiltNode) {
	n.acquire = func(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
		if ctx.Err() != nil {
			ctx = context.Background()
		}
		return n.inner.Acquire(ctx, id, opts)
	}
}

func loseCause(n *spoiltNode) {
	n.acquire = func(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
		l, err := n.inner.Acquire(ctx, id, opts)
		if ctx.Err() != nil && err != nil {
			err = ctx.Err()
		}
		return l, err
	}
}

func ignoreContext(n *spoiltNode) {
	n.acquire = func(_ context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
		return n.inner.Acquire(context.Background(), id, opts)
	}
}

// stayInQueue returns when a wait is cancelled, but stays in the queue, and
// gets a lease of which nobody knows.
func stayInQueue(n *spoiltNode) {
	n.acquire = func(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
		type result struct {
			lease highlander.Lease
			err   error
		}
		got := make(chan result, 1)
		go func() {
			l, err := n.inner.Acquire(context.Background(), id, opts)
			got <- result{l, err}
		}()
		select {
		case r := <-got:
			return r.lease, r.err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// strand forgets the lease that comes when the context has ended. It waits for
// the lease, as if the two had come at once.
func strand(n *spoiltNode) {
	n.acquire = func(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
		l, err := n.inner.Acquire(ctx, id, opts)
		if errors.Is(err, errEnough) {
			_, _ = n.inner.Acquire(context.Background(), id, opts)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return l, err
	}
}

// mend replaces what is not allowed.
func mend(id string) string {
	if highlander.ValidateID(id) != nil {
		return "mended"
	}
	return id
}

func cutMeta(n *spoiltNode) {
	n.acquire = func(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
		opts.Meta = opts.Meta[:min(len(opts.Meta), highlander.MaxMetaLen)]
		return n.inner.Acquire(ctx, id, opts)
	}
}

func mendMeta(n *spoiltNode) {
	n.acquire = func(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
		opts.Meta = strings.ToValidUTF8(strings.ReplaceAll(opts.Meta, "\x00", ""), "")
		return n.inner.Acquire(ctx, id, opts)
	}
}

func takeNegative(n *spoiltNode) {
	n.acquire = func(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
		opts.StopWithin = max(opts.StopWithin, 0)
		return n.inner.Acquire(ctx, id, opts)
	}
}

// neverForget answers with the first holder it has seen.
func neverForget(n *spoiltNode) {
	var mu sync.Mutex
	first := map[string]highlander.Holder{}
	n.lookup = func(ctx context.Context, id string) (highlander.Holder, error) {
		mu.Lock()
		defer mu.Unlock()
		if h, ok := first[id]; ok {
			return h, nil
		}
		h, err := n.inner.Lookup(ctx, id)
		if err == nil {
			first[id] = h
		}
		return h, err
	}
}

func reverseHolders(n *spoiltNode) {
	n.holders = func(ctx context.Context) ([]highlander.Holder, error) {
		all, err := n.inner.Holders(ctx)
		slices.SortFunc(all, func(a, b highlander.Holder) int { return cmp.Compare(b.ID, a.ID) })
		return all, err
	}
}

func ownHolders(n *spoiltNode) {
	n.holders = func(ctx context.Context) ([]highlander.Holder, error) {
		all, err := n.inner.Holders(ctx)
		return slices.DeleteFunc(all, func(h highlander.Holder) bool { return h.Node != n.Node() }), err
	}
}

func leak(n *spoiltNode) {
	n.acquire = func(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
		go func() { select {} }()
		return n.inner.Acquire(ctx, id, opts)
	}
}

// closeKeepsLeases ends leases for the holder only.
func closeKeepsLeases(n *spoiltNode) {
	ended := make(chan struct{})
	var once sync.Once
	n.close = func() error {
		once.Do(func() { close(ended) })
		return nil
	}
	n.acquire = func(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
		l, err := n.inner.Acquire(ctx, id, opts)
		if err != nil {
			return nil, err
		}
		return spoilLease(l, func(l *spoiltLease) {
			l.done = func() <-chan struct{} { return ended }
			l.err = func() error {
				select {
				case <-ended:
					return highlander.ErrClosed
				default:
					return nil
				}
			}
		}), nil
	}
}

func closeKeepsWaits(n *spoiltNode) {
	n.acquire = func(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
		l, err := n.inner.Acquire(ctx, id, opts)
		if errors.Is(err, highlander.ErrClosed) {
			<-ctx.Done()
		}
		return l, err
	}
}

func closeWithOtherError(n *spoiltNode) {
	n.acquire = func(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
		l, err := n.inner.Acquire(ctx, id, opts)
		if errors.Is(err, highlander.ErrClosed) {
			err = errors.New("connection reset")
		}
		return l, err
	}
}

func closeOnce(n *spoiltNode) {
	var once sync.Once
	n.close = func() error {
		err := errors.New("closed already")
		once.Do(func() { err = n.inner.Close() })
		return err
	}
}

// reopen starts a closed node again when it is used.
func reopen(f Fixture) Fixture {
	open := f.Node
	return spoilNodes(func(n *spoiltNode) {
		n.acquire = func(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
			l, err := n.inner.Acquire(ctx, id, opts)
			if errors.Is(err, highlander.ErrClosed) {
				return open(nil, baseName(n)).Acquire(ctx, id, opts)
			}
			return l, err
		}
	})(f)
}

func lookupAfterClose(n *spoiltNode) {
	n.lookup = func(ctx context.Context, id string) (highlander.Holder, error) {
		h, err := n.inner.Lookup(ctx, id)
		if errors.Is(err, highlander.ErrClosed) {
			err = highlander.ErrNotHeld
		}
		return h, err
	}
}

func holdersAfterClose(n *spoiltNode) {
	n.holders = func(ctx context.Context) ([]highlander.Holder, error) {
		all, err := n.inner.Holders(ctx)
		if errors.Is(err, highlander.ErrClosed) {
			err = nil
		}
		return all, err
	}
}

// surviveClose gives out a lease after Close, from an Acquire that came before.
func surviveClose(n *spoiltNode) {
	n.acquire = func(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
		l, err := n.inner.Acquire(ctx, id, opts)
		if errors.Is(err, highlander.ErrClosed) {
			l, err = New().Node("elsewhere").Acquire(ctx, id, opts)
		}
		if err != nil {
			return nil, err
		}
		return spoilLease(l, openDone), nil
	}
}

// lateAlone has nodes that come late start a cluster of their own.
func lateAlone(f Fixture) Fixture {
	open := f.Node
	f.Node = func(t *testing.T, name string) highlander.Cluster {
		if name == "d" {
			return New().Node(name)
		}
		return open(t, name)
	}
	return f
}

func crashUnnoticed(f Fixture) Fixture {
	f.Crash = func(*testing.T, highlander.Cluster) {}
	return f
}

// crashFreesAll gives the leases of a crashed node to whoever waits.
func crashFreesAll(f Fixture) Fixture {
	crashed := make(chan struct{})
	crash := f.Crash
	f.Crash = func(t *testing.T, n highlander.Cluster) {
		crash(t, n)
		close(crashed)
	}
	return spoilNodes(func(n *spoiltNode) {
		n.acquire = func(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
			own, cancel := context.WithCancelCause(ctx)
			defer cancel(nil)
			go func() {
				select {
				case <-crashed:
					cancel(highlander.ErrNotHeld)
				case <-own.Done():
				}
			}()
			l, err := n.inner.Acquire(own, id, opts)
			if errors.Is(err, highlander.ErrNotHeld) {
				return New().Node(fmt.Sprint("alone ", n.Node())).Acquire(ctx, id, opts)
			}
			return l, err
		}
	})(f)
}

// spoilExpires replaces Expires.
func spoilExpires(expires func(highlander.Lease) time.Time) func(Fixture) Fixture {
	return spoilLeases(func(l *spoiltLease) { l.expires = func() time.Time { return expires(l.Lease) } })
}

func neverRenew(l *spoiltLease) {
	ends := l.Lease.Expires()
	l.expires = func() time.Time { return ends }
}

// takeLong shortens a StopWithin that does not fit.
func takeLong(n *spoiltNode) {
	n.acquire = func(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
		opts.StopWithin = min(opts.StopWithin, memoryTTL/2)
		return n.inner.Acquire(ctx, id, opts)
	}
}

// tellLate closes Done when the lease has run out.
func tellLate(l *spoiltLease) {
	done := make(chan struct{})
	go func() {
		<-l.Lease.Done()
		time.Sleep(time.Until(l.Lease.Expires()))
		close(done)
	}()
	l.done = func() <-chan struct{} { return done }
}

func otherReason(l highlander.Lease) func() error {
	return func() error {
		if err := l.Err(); !errors.Is(err, highlander.ErrLeaseLost) {
			return err
		}
		return highlander.ErrConflict
	}
}

// driftAfterDone moves Expires, after Done, at each call but the first.
func driftAfterDone(l *spoiltLease) {
	asked := 0
	l.expires = func() time.Time {
		if l.Lease.Err() != nil {
			asked++
		}
		return l.Lease.Expires().Add(time.Duration(max(asked-1, 0)) * memoryTTL)
	}
}

// cutForEver has nodes that were cut off once wait for ever.
func cutForEver(f Fixture) Fixture {
	var mu sync.Mutex
	lost := map[string]bool{}
	cut := f.Cut
	f.Cut = func(t *testing.T, n highlander.Cluster) func() {
		mu.Lock()
		defer mu.Unlock()
		lost[n.Node()] = true
		return cut(t, n)
	}
	return spoilNodes(func(n *spoiltNode) {
		n.acquire = func(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
			mu.Lock()
			hangs := lost[n.inner.Node()]
			mu.Unlock()
			if hangs {
				<-ctx.Done()
				return nil, context.Cause(ctx)
			}
			return n.inner.Acquire(ctx, id, opts)
		}
	})(f)
}

// cutForItself makes each node that is cut off a cluster.
func cutForItself(f Fixture) Fixture {
	var mu sync.Mutex
	alone := map[string]bool{}
	f.Cut = func(_ *testing.T, n highlander.Cluster) func() {
		mu.Lock()
		defer mu.Unlock()
		alone[n.Node()] = true
		return func() {}
	}
	return spoilNodes(func(n *spoiltNode) {
		n.acquire = func(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
			mu.Lock()
			itself := alone[n.inner.Node()]
			mu.Unlock()
			if itself {
				return New().Node("x").Acquire(ctx, id, opts)
			}
			return n.inner.Acquire(ctx, id, opts)
		}
	})(f)
}
