package highlander_test

import (
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thejerf/suture/v4"

	"highlander"
	"highlander/highlandertest"
)

// A supervisor as the child: it is built anew for each run, for a
// suture.Supervisor can be served only once, and it waits for its services as
// long as they take.
func TestSupervisorAsTheChild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tr troupe
		var causes []error // why the supervisors were told to stop
		cluster := highlandertest.New()
		start := func(node string) {
			pair := highlander.ServiceFunc(func(ctx context.Context) error {
				sup := suture.New(node, suture.Spec{Timeout: math.MaxInt64})
				sup.Add(tr.child(node + ": one"))
				sup.Add(tr.child(node + ": two"))
				err := sup.Serve(ctx)
				causes = append(causes, context.Cause(ctx))
				return err
			})
			ctx, cancel := context.WithCancel(t.Context())
			served := make(chan struct{})
			go func() {
				defer close(served)
				highlander.Wrap(cluster.Node(node), highlander.ChildSpec{ID: "pair", Service: pair}).Serve(ctx)
			}()
			t.Cleanup(func() {
				cancel()
				<-served
			})
			synctest.Wait()
		}
		start("a")
		start("b")
		tr.mustRun(t, "a: one", "a: two")

		for range 3 { // each loss goes through both nodes
			cluster.Expire("pair")
			time.Sleep(time.Second) // the cleanup
			tr.mustRun(t, "b: one", "b: two")
			cluster.Expire("pair")
			time.Sleep(time.Second)
			tr.mustRun(t, "a: one", "a: two")
		}
		if want := slices.Repeat([]error{highlander.ErrLeaseLost}, 6); !slices.Equal(causes, want) {
			t.Errorf("the supervisors were told to stop with %v, want %v", causes, want)
		}
		if names := slices.Sorted(maps.Keys(tr.cleaned)); !slices.Equal(names, []string{"a: one", "a: two", "b: one", "b: two"}) {
			t.Errorf("%q have cleaned up, want all four", names)
		}
		// The contexts of suture are derived from the child's: the cause is there, if
		// the supervisor was not first to cancel the service itself.
		for name, cause := range tr.cleaned {
			if cause != highlander.ErrLeaseLost && cause != context.Canceled {
				t.Errorf("%s was told to stop with %v, want %v", name, cause, highlander.ErrLeaseLost)
			}
		}
	})
}

// The lease is released only when the last service below has returned.
func TestSupervisorAsTheChildIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tl := newTimeline()
		pair := highlander.ServiceFunc(func(ctx context.Context) error {
			sup := suture.New("pair", suture.Spec{Timeout: math.MaxInt64})
			sup.Add(untilTold(tl, time.Second))
			sup.Add(untilTold(tl, time.Minute))
			return sup.Serve(ctx)
		})
		r := serve(t, tl, highlander.ChildSpec{Service: pair})
		r.cluster.grant(t)
		r.end()
		time.Sleep(time.Minute)
		mustMatch(t, r.returned(t), context.Canceled)
		tl.mustBe(t, `
			0s waiting
			0s acquired #1
			0s started #1
			0s stopping #1: shutdown
			1s child returns
			5s overrun #1: shutdown
			1m0s child returns
			1m0s stopped #1: context canceled
			1m0s release called
			1m0s released #1`)
	})
}

// A *suture.Supervisor is a Service as it stands. It may be given as it is where
// it is served once.
func TestSupervisorAsTheChildOfRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tr troupe
		sup := suture.NewSimple("pair")
		sup.Add(tr.child("one"))
		sup.Add(tr.child("two"))
		ctx, cancel := context.WithCancel(t.Context())
		var service highlander.Service = sup
		go func() {
			synctest.Wait()
			tr.mustRun(t, "one", "two")
			cancel()
		}()
		err := highlander.Run(ctx, highlandertest.New().Node("a"), "pair", service.Serve)
		mustMatch(t, err, context.Canceled)
		tr.mustRun(t)
	})
}

// One line changes: sup.Add(worker) becomes sup.Add(highlander.Wrap(...)).
func TestSingletonsInASupervisor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tr troupe
		cluster := highlandertest.New()
		program := func(name string) (stop func()) {
			node := cluster.Node(name)
			sup := suture.NewSimple(name)
			for _, id := range []string{"mail", "report"} {
				sup.Add(highlander.Wrap(node, highlander.ChildSpec{ID: id, Service: tr.child(name + ": " + id)}))
			}
			ctx, cancel := context.WithCancel(t.Context())
			served := sup.ServeBackground(ctx)
			synctest.Wait()
			stop = sync.OnceFunc(func() {
				cancel()
				mustMatch(t, <-served, context.Canceled)
			})
			t.Cleanup(stop)
			return stop
		}
		stopA := program("a")
		program("b")
		tr.mustRun(t, "a: mail", "a: report")
		stopA()
		tr.mustRun(t, "b: mail", "b: report")
	})
}

// A child that fails too often goes to another node; the supervisor above
// serves this one again, which waits at the end of the queue.
func TestSupervisorServesAgainAfterTooManyRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tr troupe
		cluster := highlandertest.New()
		var gaveUp []error
		sup := suture.New("a", suture.Spec{EventHook: func(e suture.Event) {
			if e, ok := e.(suture.EventServiceTerminate); ok {
				gaveUp = append(gaveUp, e.Err.(error))
			}
		}})
		failing := highlander.ServiceFunc(func(context.Context) error { return errBoom })
		s := highlander.Wrap(cluster.Node("a"), highlander.ChildSpec{ID: "worker", Service: failing})
		sup.Add(s)
		ctx, cancel := context.WithCancel(t.Context())
		blocker, err := cluster.Node("b").Acquire(ctx, "worker", highlander.AcquireOptions{})
		if err != nil {
			t.Fatal(err)
		}
		served := sup.ServeBackground(ctx)
		synctest.Wait()
		tr.start(t, cluster.Node("b"), "worker", "b")
		blocker.Release(ctx)
		tr.mustRun(t, "b")
		if status := s.Status(); status.State != highlander.Waiting || status.Holder.Node != "b#1" {
			t.Errorf("status is %+v, want waiting for b", status)
		}
		cancel()
		<-served
		if len(gaveUp) != 1 || !errors.Is(gaveUp[0], highlander.ErrTooManyRestarts) {
			t.Errorf("the supervisor saw %v, want ErrTooManyRestarts once", gaveUp)
		}
	})
}

// As golang.org/x/sync/errgroup does: the first error ends the others.
func TestSingletonsInAGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tr troupe
		node := highlandertest.New().Node("a")
		ctx, cancel := context.WithCancelCause(t.Context())
		var wg sync.WaitGroup
		group := func(s *highlander.Singleton) {
			wg.Go(func() { cancel(s.Serve(ctx)) })
		}
		failing := highlander.ServiceFunc(func(ctx context.Context) error {
			time.Sleep(time.Minute)
			return errBoom
		})
		group(highlander.Wrap(node, highlander.ChildSpec{ID: "one", Service: tr.child("one")}))
		group(highlander.Wrap(node, highlander.ChildSpec{ID: "two", Service: tr.child("two")}))
		group(highlander.Wrap(node, highlander.ChildSpec{ID: "bad", Service: failing, MaxRestarts: -1}))
		tr.mustRun(t, "one", "two")
		wg.Wait()
		mustMatch(t, context.Cause(ctx), highlander.ErrTooManyRestarts, errBoom)
		if !slices.Equal(tr.running, nil) || len(tr.cleaned) != 2 {
			t.Errorf("%v still run, %v cleaned up", tr.running, tr.cleaned)
		}
		if holders, _ := node.Holders(t.Context()); len(holders) != 0 {
			t.Errorf("leases that were not released: %v", holders)
		}
	})
}
