package highlander_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"highlander"
	"highlander/highlandertest"
)

// The behaviours of the original Highlander.

// troupe is children that note where they run, and what happened to them.
type troupe struct {
	mu      sync.Mutex
	running []string         // names of the children that run, sorted
	starts  int              // of all of them
	cleaned map[string]error // the cause for each child whose cleanup ran to the end
}

// child runs until it is told to stop; its cleanup takes a second.
func (tr *troupe) child(name string) highlander.ServiceFunc {
	return func(ctx context.Context) error {
		tr.mu.Lock()
		tr.starts++
		tr.running = append(tr.running, name)
		slices.Sort(tr.running)
		tr.mu.Unlock()
		<-ctx.Done()
		time.Sleep(time.Second)
		tr.mu.Lock()
		defer tr.mu.Unlock()
		if tr.cleaned == nil {
			tr.cleaned = map[string]error{}
		}
		tr.cleaned[name] = context.Cause(ctx)
		tr.running = slices.DeleteFunc(tr.running, func(other string) bool { return other == name })
		return nil
	}
}

// start wraps a child of that name and serves it until the returned function is
// called, which waits for Serve, or the test ends.
func (tr *troupe) start(t *testing.T, node highlander.Cluster, id, name string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan struct{})
	go func() {
		defer close(served)
		highlander.Wrap(node, highlander.ChildSpec{ID: id, Service: tr.child(name)}).Serve(ctx)
	}()
	stop = func() {
		cancel()
		<-served
	}
	t.Cleanup(stop)
	synctest.Wait() // first come, first served
	return stop
}

func (tr *troupe) mustRun(t *testing.T, names ...string) {
	t.Helper()
	synctest.Wait()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if !slices.Equal(tr.running, names) {
		t.Errorf("%q run, want %q", tr.running, names)
	}
}

// mustHaveCleanedUp fails the test unless exactly that child got to clean up.
func (tr *troupe) mustHaveCleanedUp(t *testing.T, name string, cause error) {
	t.Helper()
	synctest.Wait()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if len(tr.cleaned) != 1 || tr.cleaned[name] != cause {
		t.Errorf("cleaned up: %v, want %s with cause %v", tr.cleaned, name, cause)
	}
}

func TestTwoIDsBothRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tr troupe
		node := highlandertest.New().Node("a")
		tr.start(t, node, "one", "one")
		tr.start(t, node, "two", "two")
		tr.mustRun(t, "one", "two")
	})
}

func TestSameIDTwiceInOneProcessOneRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tr troupe
		node := highlandertest.New().Node("a")
		tr.start(t, node, "worker", "first")
		tr.start(t, node, "worker", "second")
		time.Sleep(time.Hour)
		tr.mustRun(t, "first")
	})
}

func TestSameIDOnTwoNodesOneRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tr troupe
		cluster := highlandertest.New()
		tr.start(t, cluster.Node("a"), "worker", "a")
		tr.start(t, cluster.Node("b"), "worker", "b")
		time.Sleep(time.Hour)
		tr.mustRun(t, "a")
	})
}

func TestHolderEndsAndTheOtherTakesOverOnlyOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tr troupe
		cluster := highlandertest.New()
		stop := tr.start(t, cluster.Node("a"), "worker", "a")
		tr.start(t, cluster.Node("b"), "worker", "b")
		tr.start(t, cluster.Node("c"), "worker", "c")
		stop()
		time.Sleep(time.Hour)
		tr.mustRun(t, "b")
		if tr.starts != 2 {
			t.Errorf("%d children were started, want a's and b's", tr.starts)
		}
	})
}

func TestHolderCrashesAndTheOtherTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tr troupe
		cluster := highlandertest.New()
		tr.start(t, cluster.Node("a"), "worker", "a")
		tr.start(t, cluster.Node("b"), "worker", "b")
		cluster.Crash("a")
		time.Sleep(time.Hour)
		tr.mustRun(t, "a", "b") // a's goroutines stand for a process that is dead
		if tr.starts != 2 {
			t.Errorf("%d children were started, want 2", tr.starts)
		}
	})
}

// The loser cleans up to the end, the winner never notices.
func TestTwoNodesCutApartAndHealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tr troupe
		cluster := highlandertest.New()
		tr.start(t, cluster.Node("a"), "worker", "a")
		tr.start(t, cluster.Node("b"), "worker", "b")
		tr.mustRun(t, "a")
		cluster.Partition([]string{"a"}, []string{"b"})
		time.Sleep(time.Minute)
		tr.mustRun(t, "a", "b")

		cluster.Heal()
		time.Sleep(time.Minute)
		holder, err := cluster.Node("c").Lookup(t.Context(), "worker")
		if err != nil {
			t.Fatal(err)
		}
		winner, loser := "a", "b"
		if holder.Node == cluster.Node("b").Node() {
			winner, loser = "b", "a"
		}
		tr.mustRun(t, winner)
		tr.mustHaveCleanedUp(t, loser, highlander.ErrConflict)
		if tr.starts != 2 {
			t.Errorf("%d children were started, want 2", tr.starts)
		}
	})
}

func TestTenNodesCutFourToSixAndHealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tr troupe
		cluster := highlandertest.New()
		var names []string
		for i := range 10 {
			name := fmt.Sprint("n", i)
			names = append(names, name)
			tr.start(t, cluster.Node(name), "worker", name)
		}
		tr.mustRun(t, "n0")
		cluster.Partition(names[:4], names[4:])
		time.Sleep(time.Minute)
		tr.mustRun(t, "n0", "n4")
		cluster.Heal()
		time.Sleep(time.Minute)
		tr.mustRun(t, "n4")
		tr.mustHaveCleanedUp(t, "n0", highlander.ErrConflict)
	})
}

// A frozen holder wakes up: it learns that it has been replaced.
func TestFrozenHolderCleansUpWhenItWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tr troupe
		cluster := highlandertest.New()
		tr.start(t, cluster.Node("a"), "worker", "a")
		tr.start(t, cluster.Node("b"), "worker", "b")
		cluster.Freeze("a")
		tr.mustRun(t, "a", "b")
		cluster.Unfreeze("a")
		time.Sleep(time.Minute)
		tr.mustRun(t, "b")
		tr.mustHaveCleanedUp(t, "a", highlander.ErrConflict)
	})
}

func TestCleanupRunsWhenTheProgramEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tr troupe
		stop := tr.start(t, highlandertest.New().Node("a"), "worker", "a")
		stop()
		tr.mustRun(t)
		tr.mustHaveCleanedUp(t, "a", highlander.ErrShutdown)
	})
}
