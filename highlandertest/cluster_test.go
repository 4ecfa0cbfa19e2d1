package highlandertest_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"highlander"
	"highlander/highlandertest"
)

// claimant is an Acquire of "worker" in a goroutine of its own.
type claimant struct {
	stop context.CancelFunc

	mu    sync.Mutex
	lease highlander.Lease // nil while it waits
	err   error
}

// claims makes every named node claim "worker", in that order.
func claims(t *testing.T, c *highlandertest.Cluster, names ...string) map[string]*claimant {
	t.Helper()
	all := map[string]*claimant{}
	for _, name := range names {
		all[name] = claim(t, c.Node(name), highlander.AcquireOptions{Meta: "at " + name})
	}
	return all
}

func claim(t *testing.T, n highlander.Cluster, opts highlander.AcquireOptions) *claimant {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	cl := &claimant{stop: cancel}
	go func() {
		lease, err := n.Acquire(ctx, "worker", opts)
		cl.mu.Lock()
		defer cl.mu.Unlock()
		cl.lease, cl.err = lease, err
	}()
	synctest.Wait()
	return cl
}

// state is "waiting", "holds" or how it ended.
func (cl *claimant) state() string {
	synctest.Wait()
	cl.mu.Lock()
	defer cl.mu.Unlock()
	switch {
	case cl.err != nil:
		return cl.err.Error()
	case cl.lease == nil:
		return "waiting"
	case cl.lease.Err() != nil:
		return cl.lease.Err().Error()
	}
	return "holds"
}

func (cl *claimant) must(t *testing.T, want string) {
	t.Helper()
	if got := cl.state(); got != want {
		t.Fatalf("state is %q, want %q", got, want)
	}
}

func (cl *claimant) mustHold(t *testing.T, token uint64) {
	t.Helper()
	cl.must(t, "holds")
	if cl.lease.Token() != token {
		t.Errorf("token is %d, want %d", cl.lease.Token(), token)
	}
}

const (
	waiting  = "waiting"
	conflict = "highlander: another node holds the id"
)

func seesHolder(t *testing.T, n highlander.Cluster, want string) {
	t.Helper()
	h, err := n.Lookup(t.Context(), "worker")
	if errors.Is(err, highlander.ErrNotHeld) {
		h.Node = ""
	} else if err != nil {
		t.Fatal(err)
	}
	if h.Node != want {
		t.Errorf("%s sees holder %q, want %q", n.Node(), h.Node, want)
	}
}

func TestNodeIsTheSameWhileAlive(t *testing.T) {
	c := highlandertest.New()
	first := c.Node("a")
	if c.Node("a") != first || first.Node() != "a#1" {
		t.Errorf("a second call of Node gave another node than %q", first.Node())
	}
	c.Crash("a")
	second := c.Node("a")
	if second == first || second.Node() != "a#2" {
		t.Errorf("after Crash, Node gave %q, want a#2", second.Node())
	}
	second.Close()
	if got := c.Node("a").Node(); got != "a#3" {
		t.Errorf("after Close, Node gave %q, want a#3", got)
	}
}

func TestNetsplitRunsOnBothSidesAndTheLargerSideStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := highlandertest.New()
		cl := claims(t, c, "a", "b", "c")
		cl["a"].mustHold(t, 1)

		c.Partition([]string{"a"}, []string{"b", "c"})
		cl["a"].mustHold(t, 1)
		cl["b"].mustHold(t, 2)
		cl["c"].must(t, waiting)
		seesHolder(t, c.Node("a"), "a#1")
		seesHolder(t, c.Node("c"), "b#1")

		c.Heal()
		cl["a"].must(t, conflict)
		cl["b"].mustHold(t, 2)
		seesHolder(t, c.Node("a"), "b#1")
	})
}

func TestHolderThatStaysTakesATokenAboveTheLosers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := highlandertest.New()
		cl := claims(t, c, "a", "b", "c")
		c.Partition([]string{"a", "c"}, []string{"b"})
		cl["b"].mustHold(t, 2)

		c.Heal()
		cl["b"].must(t, conflict)
		cl["a"].mustHold(t, 3)
	})
}

func TestTokenRisesAlsoAboveALeaseThatEndedOnTheOtherSide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := highlandertest.New()
		cl := claims(t, c, "a", "b")
		c.Partition([]string{"a"}, []string{"b"})
		cl["b"].mustHold(t, 2)
		cl["b"].lease.Release(t.Context())

		c.Heal()
		cl["a"].mustHold(t, 3)
	})
}

func TestEqualSidesKeepTheLaterWinner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := highlandertest.New()
		cl := claims(t, c, "a", "b")
		c.Partition([]string{"a"}, []string{"b"})
		c.Heal()
		cl["a"].must(t, conflict)
		cl["b"].mustHold(t, 2)
	})
}

func TestSidesCountWithAllTheirNodesNotOnlyClaimants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := highlandertest.New()
		for _, bystander := range []string{"x", "y", "z"} {
			c.Node(bystander)
		}
		cl := claims(t, c, "a", "b", "c")
		c.Partition([]string{"a", "x", "y", "z"}, []string{"b", "c"})
		cl["b"].mustHold(t, 2)
		c.Heal()
		cl["a"].mustHold(t, 3)
		cl["b"].must(t, conflict)
	})
}

func TestUnnamedNodesAreASideAndNewNodesJoinTheirs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := highlandertest.New()
		cl := claims(t, c, "a", "b")
		c.Partition([]string{"a", "late"})
		cl["b"].mustHold(t, 2)
		seesHolder(t, c.Node("late"), "a#1")
		seesHolder(t, c.Node("other"), "b#1")
	})
}

func TestSideWithoutClaimantGetsNoHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := highlandertest.New()
		cl := claims(t, c, "a")
		b := c.Node("b")
		c.Partition([]string{"a"}, []string{"b"})
		seesHolder(t, b, "")
		c.Heal()
		cl["a"].mustHold(t, 1)
		seesHolder(t, b, "a#1")
	})
}

func TestCrashHandsOverAndTellsTheDeadNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := highlandertest.New()
		dead := c.Node("a")
		cl := claims(t, c, "a", "b")
		c.Crash("a")
		cl["b"].mustHold(t, 2)
		cl["a"].mustHold(t, 1) // as far as it knows
		if _, err := dead.Lookup(t.Context(), "worker"); !errors.Is(err, highlander.ErrClosed) {
			t.Errorf("Lookup of a crashed node: %v, want ErrClosed", err)
		}
		late := claim(t, dead, highlander.AcquireOptions{})
		late.must(t, waiting)

		if err := cl["a"].lease.Release(t.Context()); err != nil {
			t.Error(err)
		}
		cl["b"].mustHold(t, 2)
		dead.Close()
		late.must(t, highlander.ErrClosed.Error())
	})
}

func TestFrozenHolderLearnsOfTheTakeOverWhenItWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := highlandertest.New()
		cl := claims(t, c, "a", "b")
		c.Freeze("a")
		cl["b"].mustHold(t, 2)
		cl["a"].mustHold(t, 1)
		seesHolder(t, c.Node("a"), "a#1")
		seesHolder(t, c.Node("b"), "b#1")

		c.Unfreeze("a") // of two nodes: the one that was given up loses
		cl["a"].must(t, conflict)
		cl["b"].mustHold(t, 2)
		seesHolder(t, c.Node("a"), "b#1")
	})
}

func TestFrozenHolderThatNobodyReplacedKeepsItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := highlandertest.New()
		cl := claims(t, c, "a")
		b := c.Node("b")
		c.Freeze("a")
		seesHolder(t, b, "")
		c.Unfreeze("a")
		cl["a"].mustHold(t, 1)
		seesHolder(t, b, "a#1")
	})
}

func TestFrozenWaiterIsPassedOverAndKeepsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := highlandertest.New()
		cl := claims(t, c, "a", "b", "c", "d")
		c.Freeze("b")
		cl["a"].lease.Release(t.Context())
		cl["b"].must(t, waiting)
		cl["c"].mustHold(t, 2)
		c.Unfreeze("b")
		cl["c"].lease.Release(t.Context())
		cl["b"].mustHold(t, 3)
		cl["d"].must(t, waiting)
	})
}

func TestFrozenHolderMayStillRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := highlandertest.New()
		cl := claims(t, c, "a", "b")
		c.Freeze("a")
		cl["a"].lease.Release(t.Context())
		seesHolder(t, c.Node("a"), "")
		c.Unfreeze("a")
		cl["b"].mustHold(t, 2)
	})
}

func TestExpireTellsTheHolderBeforeOthersStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := highlandertest.New()
		a := claim(t, c.Node("a"), highlander.AcquireOptions{StopWithin: 5 * time.Second})
		b := claim(t, c.Node("b"), highlander.AcquireOptions{})
		if !a.lease.Expires().IsZero() {
			t.Errorf("Expires is %v before Expire", a.lease.Expires())
		}

		c.Expire("worker")
		a.must(t, highlander.ErrLeaseLost.Error())
		if left := time.Until(a.lease.Expires()); left != 5*time.Second {
			t.Errorf("expires in %v, want 5s", left)
		}
		time.Sleep(5*time.Second - time.Nanosecond)
		b.must(t, waiting)
		time.Sleep(time.Nanosecond)
		b.mustHold(t, 2)
		a.must(t, highlander.ErrLeaseLost.Error())
	})
}

func TestReleaseAfterExpireHandsOverAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := highlandertest.New()
		a := claim(t, c.Node("a"), highlander.AcquireOptions{StopWithin: 5 * time.Second})
		b := claim(t, c.Node("b"), highlander.AcquireOptions{})
		c.Expire("worker")
		a.lease.Release(t.Context())
		b.mustHold(t, 2)
		time.Sleep(time.Minute)
		b.mustHold(t, 2)
	})
}

func TestExpireWithoutTimeToStopHandsOverAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := highlandertest.New()
		cl := claims(t, c, "a", "b")
		c.Expire("worker")
		cl["a"].must(t, highlander.ErrLeaseLost.Error())
		if cl["a"].lease.Expires().IsZero() {
			t.Error("Expires is zero")
		}
		cl["b"].mustHold(t, 2)
	})
}

func TestEndOfContextGoesBeforeTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := highlandertest.New()
		for range 100 { // a select that chose at random would show
			first := claim(t, c.Node("a"), highlander.AcquireOptions{})
			second := claim(t, c.Node("b"), highlander.AcquireOptions{})
			second.stop()
			first.lease.Release(t.Context())
			second.must(t, context.Canceled.Error())
			seesHolder(t, c.Node("a"), "")
		}
	})
}

func TestEndedContextTakesNoToken(t *testing.T) {
	c := highlandertest.New()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if l, err := c.Node("a").Acquire(ctx, "worker", highlander.AcquireOptions{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("Acquire gives %v, %v, want %v", l, err, context.Canceled)
	}
	l, err := c.Node("a").Acquire(t.Context(), "worker", highlander.AcquireOptions{})
	if err != nil || l.Token() != 1 {
		t.Errorf("Acquire gives %v, %v, want token 1", l, err)
	}
}

func TestMistakesOfATestPanic(t *testing.T) {
	c := highlandertest.New()
	c.Node("a")
	for name, mistake := range map[string]func(){
		"Crash":     func() { c.Crash("nobody") },
		"Freeze":    func() { c.Freeze("nobody") },
		"Unfreeze":  func() { c.Unfreeze("nobody") },
		"Expire":    func() { c.Expire("free") },
		"Partition": func() { c.Partition([]string{"a"}, []string{"a", "b"}) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			mistake()
		})
	}
	if got := c.Node("a").Node(); got != "a#1" {
		t.Errorf("node is %q after the mistakes, want a#1", got)
	}
}

func TestTenNodesCutFourToSix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := highlandertest.New()
		names := []string{"n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9"}
		cl := claims(t, c, names...)
		c.Partition(names[:4], names[4:])
		cl["n0"].mustHold(t, 1)
		cl["n4"].mustHold(t, 2)
		c.Heal()
		cl["n0"].must(t, conflict)
		cl["n4"].mustHold(t, 2)
		for _, name := range slices.Concat(names[1:4], names[5:]) {
			cl[name].must(t, waiting)
		}
	})
}
