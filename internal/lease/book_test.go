package lease_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"highlander"
	"highlander/internal/lease"
)

func TestHolderIsToldStopWithinAndMarginBeforeTheEnd(t *testing.T) {
	inWorld(t, func(w *world) {
		l, s := w.grant(12*time.Second, 5*time.Second)
		w.pass(7*time.Second - lease.Margin - time.Nanosecond)
		w.held(l)
		w.expires(l, 5*time.Second+lease.Margin+time.Nanosecond)
		w.pass(time.Nanosecond)
		w.done(l, highlander.ErrLeaseLost)
		w.expires(l, 5*time.Second+lease.Margin)
		w.logged(`level=WARN msg="the lease was not renewed in time; stopping" id=id token=7 left=5.1s`)
		w.expect(s, 0, 0)
	})
}

// While the child stops, the turn is not over: another Acquire in the process
// must wait, too.
func TestLeaseIsOverWhenItHasRunOut(t *testing.T) {
	inWorld(t, func(w *world) {
		_, s := w.grant(12*time.Second, 5*time.Second)
		w.pass(12*time.Second - time.Nanosecond)
		w.expect(s, 0, 0)
		w.pass(time.Nanosecond)
		w.expect(s, 0, 1)
	})
}

func TestRenewalPutsTheEndOff(t *testing.T) {
	inWorld(t, func(w *world) {
		l, _ := w.grant(2*time.Second, time.Second)
		for range 100 {
			w.pass(500 * time.Millisecond)
			l.Renew(w.now() + 2*time.Second)
			w.expires(l, 2*time.Second)
		}
		l.Renew(w.now() + time.Second) // the answer to an earlier one, which was late
		w.expires(l, 2*time.Second)
		w.pass(time.Second - lease.Margin - time.Nanosecond)
		w.held(l)
		w.pass(time.Nanosecond)
		w.done(l, highlander.ErrLeaseLost)
	})
}

func TestNothingRevivesALeaseWhoseHolderWasTold(t *testing.T) {
	inWorld(t, func(w *world) {
		late, _ := w.grant(2*time.Second, time.Second)
		w.pass(time.Second)
		w.done(late, highlander.ErrLeaseLost)
		harmed, _ := w.grant(2*time.Second, time.Second)
		harmed.Lose(highlander.ErrConflict)
		w.RenewAll(w.now() + time.Hour)
		late.Renew(w.now() + time.Hour)
		w.expires(late, time.Second)
		w.expires(harmed, 2*time.Second)
		harmed.Lose(highlander.ErrLeaseLost)
		w.done(harmed, highlander.ErrConflict)
	})
}

// The machine is suspended. When it wakes, a renewal may be there before the
// book has looked at the clock.
func TestRenewalThatComesTooLateIsNone(t *testing.T) {
	inWorld(t, func(w *world) {
		l, _ := w.grant(2*time.Second, time.Second)
		w.suspend(time.Second)
		l.Renew(w.now() + 2*time.Second)
		w.RenewAll(w.now() + 2*time.Second)
		w.expires(l, time.Second)
		w.pass(lease.Margin)
		w.done(l, highlander.ErrLeaseLost)
	})
}

func TestClockIsLookedAtWithinTheMarginOfWaking(t *testing.T) {
	inWorld(t, func(w *world) {
		l, s := w.grant(time.Hour, time.Second)
		w.pass(time.Minute)
		w.suspend(59*time.Minute - time.Second - lease.Margin)
		w.pass(lease.Margin)
		w.done(l, highlander.ErrLeaseLost)
		w.suspend(time.Second)
		w.pass(lease.Margin)
		w.expect(s, 0, 1)
		w.expires(l, -lease.Margin)
	})
}

func TestLeaseThatIsLostIsKeptUntilRelease(t *testing.T) {
	inWorld(t, func(w *world) {
		l, s := w.grant(2*time.Second, time.Second)
		l.Lose(highlander.ErrLeaseLost)
		w.done(l, highlander.ErrLeaseLost)
		w.pass(time.Second)
		w.expect(s, 0, 0)
		if err := l.Release(w.Context()); err != nil {
			w.Fatal(err)
		}
		w.expect(s, 1, 1)
		w.done(l, highlander.ErrLeaseLost)
		w.pass(time.Hour)
		w.expect(s, 1, 1)
	})
}

func TestLoseAll(t *testing.T) {
	inWorld(t, func(w *world) {
		a, _ := w.grant(2*time.Second, time.Second)
		b, s := w.grant(3*time.Second, time.Second)
		w.LoseAll(highlander.ErrConflict)
		w.done(a, highlander.ErrConflict)
		w.done(b, highlander.ErrConflict)
		w.pass(3*time.Second - time.Nanosecond)
		w.expect(s, 0, 0)
		w.pass(time.Nanosecond)
		w.expect(s, 0, 1)
	})
}

// A child that overstays releases late. The others are waiting for nothing any
// more, but the engine may have something to put away.
func TestReleaseAfterTheLeaseHasRunOut(t *testing.T) {
	inWorld(t, func(w *world) {
		l, s := w.grant(2*time.Second, time.Second)
		w.pass(3 * time.Second)
		w.expect(s, 0, 1)
		if err := l.Release(w.Context()); err != nil {
			w.Fatal(err)
		}
		w.expect(s, 1, 1)
	})
}

func TestReleaseIsOneCallWithTheContextOfTheFirst(t *testing.T) {
	inWorld(t, func(w *world) {
		l, s := w.grant(time.Minute, time.Second)
		<-s.answer // so that it hangs
		type key struct{}
		first := make(chan error, 1)
		go func() { first <- l.Release(context.WithValue(w.Context(), key{}, "first")) }()
		synctest.Wait()
		w.done(l, highlander.ErrClosed)
		l.Lose(highlander.ErrConflict)
		w.done(l, highlander.ErrClosed)

		impatient, cancel := context.WithCancelCause(w.Context())
		enough := errors.New("enough")
		cancel(enough)
		if err := l.Release(impatient); !errors.Is(err, enough) {
			w.Errorf("a second Release whose context has ended: %v, want its cause", err)
		}
		second := make(chan error, 1)
		go func() { second <- l.Release(w.Context()) }()
		synctest.Wait()
		select {
		case err := <-second:
			w.Errorf("the second Release has returned %v before the first", err)
		default:
		}
		w.expect(s, 1, 0)

		down := errors.New("down")
		s.answer <- down
		for _, result := range []chan error{first, second} {
			if err := <-result; !errors.Is(err, down) {
				w.Errorf("Release: %v, want %v", err, down)
			}
		}
		if err := l.Release(w.Context()); !errors.Is(err, down) {
			w.Errorf("a third Release: %v, want %v", err, down)
		}
		w.expect(s, 1, 1)
		if got := s.ctx.Value(key{}); got != "first" {
			w.Errorf("the engine was given the context of %v", got)
		}
	})
}

// Nobody renews what is being released, and the turn does not wait longer for a
// server that does not answer than for the lease to run out.
func TestLeaseRunsOutDuringRelease(t *testing.T) {
	inWorld(t, func(w *world) {
		l, s := w.grant(2*time.Second, time.Second)
		<-s.answer
		released := make(chan error, 1)
		go func() { released <- l.Release(w.Context()) }()
		synctest.Wait()
		w.RenewAll(w.now() + time.Hour)
		w.pass(2*time.Second - time.Nanosecond)
		w.expect(s, 1, 0)
		w.pass(time.Nanosecond)
		w.expect(s, 1, 1)
		s.answer <- nil
		if err := <-released; err != nil {
			w.Fatal(err)
		}
		w.expect(s, 1, 1)
	})
}

func TestAfterFunc(t *testing.T) {
	inWorld(t, func(w *world) {
		l, _ := w.grant(2*time.Second, time.Second)
		var ran, stopped atomic.Int32
		stopLate := l.AfterFunc(func() { ran.Add(1) })
		if stop := l.AfterFunc(func() { stopped.Add(1) }); !stop() || stop() {
			w.Error("stop reports something else than that it was the first")
		}
		w.pass(time.Second - lease.Margin - time.Nanosecond)
		if ran.Load() != 0 {
			w.Error("AfterFunc called its function while the lease was held")
		}
		w.pass(time.Nanosecond)
		if stopLate() {
			w.Error("stop says that it came in time")
		}
		if stop := l.AfterFunc(func() { ran.Add(1) }); stop() {
			w.Error("stop says that it came in time, after the end")
		}
		synctest.Wait()
		if ran.Load() != 2 || stopped.Load() != 0 {
			w.Errorf("%d functions ran, and %d of those that were stopped; want 2 and 0", ran.Load(), stopped.Load())
		}
	})
}

// A lease that has a shorter time to go than those before it is not overlooked.
func TestEachLeaseHasItsOwnEnd(t *testing.T) {
	inWorld(t, func(w *world) {
		long, _ := w.grant(time.Hour, time.Second)
		w.pass(time.Millisecond)
		for _, d := range []time.Duration{1020 * time.Millisecond, time.Second + lease.Margin + time.Nanosecond, 30 * time.Second, 2 * time.Second} {
			l, _ := w.grant(d+lease.Margin, time.Second)
			w.pass(d - time.Second - time.Nanosecond)
			w.held(l)
			w.pass(time.Nanosecond)
			w.done(l, highlander.ErrLeaseLost)
		}
		w.held(long)
	})
}

// A terminal that was stopped, or a full pipe, must not keep a child running.
func TestLogThatBlocksKeepsNobodyFromBeingTold(t *testing.T) {
	inWorld(t, func(w *world) {
		blocked := make(chan struct{})
		w.blockLog(blocked)
		first, _ := w.grant(6*time.Second, time.Second)
		same, _ := w.grant(6*time.Second, time.Second)
		later, _ := w.grant(8*time.Second, time.Second)
		w.pass(5 * time.Second)
		w.done(first, highlander.ErrLeaseLost)
		w.done(same, highlander.ErrLeaseLost)
		w.held(later)
		w.pass(2 * time.Second)
		w.done(later, highlander.ErrLeaseLost)
		close(blocked)
		synctest.Wait()
		w.logged(`id=id token=7 left=1.1s`)
	})
}

func TestManyLateLeasesAreFewLines(t *testing.T) {
	inWorld(t, func(w *world) {
		for range 1000 {
			w.grant(6*time.Second, time.Second)
		}
		w.pass(5 * time.Second)
		if lines := strings.Count(w.log.String(), "not renewed in time"); lines < 1 || lines > 10 {
			w.Errorf("%d lines for 1,000 leases", lines)
		}
		w.logged("and_others=")
	})
}

func TestLeasesThatRunOutOneAfterTheOther(t *testing.T) {
	inWorld(t, func(w *world) {
		var leases []*lease.Lease
		for i := range 20 {
			l, _ := w.grant(time.Duration(i+1)*time.Second+lease.Margin, 0)
			leases = append(leases, l)
		}
		for _, l := range leases {
			w.pass(time.Second - time.Nanosecond)
			w.held(l)
			w.pass(time.Nanosecond)
			w.done(l, highlander.ErrLeaseLost)
		}
	})
}

func TestGrantThatIsAboutToRunOut(t *testing.T) {
	inWorld(t, func(w *world) {
		l, s := w.grant(time.Second+lease.Margin, time.Second)
		w.done(l, highlander.ErrLeaseLost)
		w.expect(s, 0, 0)
		l, s = w.grant(0, time.Second)
		w.done(l, highlander.ErrLeaseLost)
		w.expect(s, 0, 1)
	})
}

func TestCloseEndsLeases(t *testing.T) {
	inWorld(t, func(w *world) {
		held, s := w.grant(2*time.Second, time.Second)
		lost, _ := w.grant(2*time.Second, time.Second)
		lost.Lose(highlander.ErrConflict)
		w.Close()
		if n := goroutines(); n != 0 {
			w.Errorf("%d goroutines are left after Close", n)
		}
		w.Close()
		w.done(held, highlander.ErrClosed)
		w.done(lost, highlander.ErrConflict)
		late, ended := w.grant(2*time.Second, time.Second)
		w.done(late, highlander.ErrClosed)
		for _, l := range []*lease.Lease{held, lost, late} {
			if err := l.Release(w.Context()); err != nil {
				w.Errorf("Release after Close: %v", err)
			}
		}
		w.expect(s, 0, 1)
		w.expect(ended, 0, 1)
	})
}

func TestCloseWaitsForTheGoroutine(t *testing.T) {
	inWorld(t, func(w *world) {
		ending := make(chan struct{})
		w.Grant(lease.Grant{ID: "id", Until: w.now() + time.Second, End: func() { <-ending }})
		w.pass(time.Second)
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			w.Close()
		}()
		synctest.Wait()
		select {
		case <-closed:
			w.Error("Close has returned before the goroutine of the book")
		default:
		}
		close(ending)
		<-closed
	})
}

func TestManyLeasesHaveOneGoroutineThatGoesWithTheLast(t *testing.T) {
	inWorld(t, func(w *world) {
		if n := goroutines(); n != 0 {
			w.Fatalf("%d goroutines without a lease", n)
		}
		for round := range 2 {
			var leases []*lease.Lease
			for i := range 10_000 {
				g := lease.Grant{ID: fmt.Sprint(i), Token: 1, StopWithin: time.Second, Until: w.now() + 3*time.Second,
					Release: func(context.Context) error { return nil }}
				leases = append(leases, w.Grant(g))
			}
			for range 3 {
				w.pass(time.Second)
				w.RenewAll(w.now() + 3*time.Second)
			}
			if n := goroutines(); n != 1 {
				w.Fatalf("round %d: %d goroutines for %d leases, want 1", round, n, len(leases))
			}
			for _, l := range leases {
				w.held(l)
				if err := l.Release(w.Context()); err != nil {
					w.Fatal(err)
				}
			}
			synctest.Wait()
			if n := goroutines(); n != 0 {
				w.Fatalf("round %d: %d goroutines after the last lease", round, n)
			}
		}
	})
}
