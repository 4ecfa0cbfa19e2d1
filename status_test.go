package highlander_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"highlander"
	"highlander/highlandertest"
)

func TestStatusFollowsTheLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tl := newTimeline()
		fail := make(chan error)
		child := func(ctx context.Context) error {
			select {
			case err := <-fail:
				return err
			case <-ctx.Done():
				time.Sleep(time.Second)
				return ctx.Err()
			}
		}
		r := rigUp(tl, highlander.ChildSpec{Service: highlander.ServiceFunc(child), Restart: highlander.Transient, Meta: "10.0.0.1:80"})
		other := highlander.Holder{ID: "worker", Node: "there", Token: 41}
		r.cluster.lookup = func(context.Context) (highlander.Holder, error) { return other, nil }
		here := func(token uint64) highlander.Holder {
			return highlander.Holder{ID: "worker", Node: "here", Meta: "10.0.0.1:80", Token: token, Since: time.Now()}
		}
		must := func(want highlander.Status) {
			t.Helper()
			synctest.Wait()
			want.ID = "worker"
			if got := r.Status(); got != want {
				t.Errorf("status is\n%+v\nwant\n%+v", got, want)
			}
		}

		must(highlander.Status{State: highlander.Idle, Holder: other})
		r.start(t)
		must(highlander.Status{State: highlander.Waiting, Node: "here", Holder: other})
		lease := r.cluster.grant(t)
		must(highlander.Status{State: highlander.Running, Node: "here", Holder: here(1), Token: 1})
		fail <- errBoom
		must(highlander.Status{State: highlander.Running, Node: "here", Holder: here(1), Token: 1, Restarts: 1})
		lease.setToken(42)
		must(highlander.Status{State: highlander.Running, Node: "here", Holder: here(42), Token: 42, Restarts: 1})
		lease.lose(highlander.ErrConflict, 0)
		must(highlander.Status{State: highlander.Stopping, Node: "here", Holder: other, Restarts: 1})
		time.Sleep(time.Second)
		must(highlander.Status{State: highlander.Waiting, Node: "here", Holder: other, Restarts: 1})
		r.cluster.grant(t)
		since := here(2)
		fail <- nil
		must(highlander.Status{State: highlander.Done, Node: "here", Holder: since, Token: 2, Restarts: 1})
		r.end()
		must(highlander.Status{State: highlander.Idle, Node: "here", Holder: other, Restarts: 1})
		r.start(t)
		r.cluster.grant(t)
		since = here(3)
		r.end()
		must(highlander.Status{State: highlander.Stopping, Node: "here", Holder: since, Token: 3})
	})
}

func TestStatusAsksTheClusterForOneSecondAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := serve(t, newTimeline(), highlander.ChildSpec{Service: untilTold(nil, 0)})
		r.cluster.lookup = func(ctx context.Context) (highlander.Holder, error) {
			<-ctx.Done()
			return highlander.Holder{Node: "half an answer"}, ctx.Err()
		}
		began := time.Now()
		want := highlander.Status{ID: "worker", State: highlander.Waiting, Node: "here"}
		if got := r.Status(); got != want {
			t.Errorf("status is %+v, want %+v", got, want)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("it took %v, want 1s", took)
		}
	})
}

func TestStatusMayBeCalledConcurrently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := highlandertest.New()
		ctx, cancel := context.WithCancel(t.Context())
		runs := 0
		child := func(ctx context.Context) error {
			if runs++; runs < 20 {
				return errBoom
			}
			cluster.Expire("worker")
			<-ctx.Done()
			cancel()
			return nil
		}
		s := highlander.Wrap(cluster.Node("a"), highlander.ChildSpec{ID: "worker", Service: highlander.ServiceFunc(child), MaxRestarts: 100})
		var wg sync.WaitGroup
		wg.Go(func() { s.Serve(ctx) })
		for range 4 {
			wg.Go(func() {
				for ctx.Err() == nil {
					if got := s.Status(); got.ID != "worker" {
						t.Errorf("status is %+v", got)
					}
					runtime.Gosched()
				}
			})
		}
		wg.Wait()
	})
}

func TestStringsForLogs(t *testing.T) {
	s := highlander.Wrap(nil, highlander.ChildSpec{ID: "worker"})
	if got := s.String(); got != `singleton "worker"` {
		t.Errorf("String is %s", got)
	}
	for state, want := range map[highlander.State]string{
		highlander.Idle: "idle", highlander.Waiting: "waiting", highlander.Running: "running",
		highlander.Stopping: "stopping", highlander.Done: "done", 7: "State(7)",
	} {
		if got := state.String(); got != want {
			t.Errorf("State is %s, want %s", got, want)
		}
	}
}

func TestFromContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if info, ok := highlander.FromContext(t.Context()); ok || info.Token() != 0 || !info.Expires().IsZero() {
			t.Errorf("outside of a child: %+v, %v", info, ok)
		}
		var info highlander.LeaseInfo
		child := func(ctx context.Context) error {
			derived, cancel := context.WithCancel(ctx)
			defer cancel()
			info, _ = highlander.FromContext(derived)
			<-ctx.Done()
			return nil
		}
		r := serve(t, newTimeline(), highlander.ChildSpec{Service: highlander.ServiceFunc(child)})
		time.Sleep(time.Minute)
		lease := r.cluster.grant(t)
		if info.ID != "worker" || info.Node != "here" || !info.Since.Equal(time.Now()) || info.Token() != 1 {
			t.Errorf("info is %+v with token %d", info, info.Token())
		}
		lease.setToken(7) // after a healed netsplit
		if info.Token() != 7 {
			t.Errorf("token is %d, want the current one, 7", info.Token())
		}
		if !info.Expires().IsZero() {
			t.Errorf("expires at %v, though the engine knows of no such time", info.Expires())
		}
		for range 2 { // it moves on
			lease.renew(time.Minute)
			if left := time.Until(info.Expires()); left != time.Minute {
				t.Errorf("expires in %v, want a minute", left)
			}
			time.Sleep(time.Second)
		}
	})
}

func TestChildOfASingletonWithinAnotherFindsItsOwnLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := highlandertest.New().Node("a")
		var ids []string
		inner := func(ctx context.Context) error {
			info, _ := highlander.FromContext(ctx)
			ids = append(ids, info.ID)
			return errBoom
		}
		outer := func(ctx context.Context) error {
			info, _ := highlander.FromContext(ctx)
			ids = append(ids, info.ID)
			return highlander.Run(ctx, node, "inner", inner)
		}
		err := highlander.Run(t.Context(), node, "outer", outer)
		if !errors.Is(err, errBoom) || len(ids) != 2 || ids[0] != "outer" || ids[1] != "inner" {
			t.Errorf("ids are %v, error %v", ids, err)
		}
	})
}

// Ten thousand singletons in a process must cost next to nothing: one goroutine
// each while they wait, two while they run.
func TestGoroutinesOfASingleton(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 100
		before := runtime.NumGoroutine()
		cluster := highlandertest.New()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		for _, want := range []struct {
			node string
			each int
		}{{"runs", 2}, {"waits", 1}} {
			for i := range n {
				child := highlander.ChildSpec{ID: fmt.Sprint(i), Service: untilTold(newTimeline(), 0)}
				wg.Go(func() { highlander.Wrap(cluster.Node(want.node), child).Serve(ctx) })
			}
			synctest.Wait()
			if got := runtime.NumGoroutine() - before; got > n*want.each {
				t.Errorf("%d singletons, each of which %s, have %d goroutines, want at most %d", n, want.node, got, n*want.each)
			}
			before = runtime.NumGoroutine()
		}
	})
}
