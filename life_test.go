package highlander_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"highlander"
)

func TestShutdownStopsWaitsThenReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tl := newTimeline()
		r := serve(t, tl, highlander.ChildSpec{Service: untilTold(tl, 2*time.Second)})
		r.cluster.grant(t)
		time.Sleep(time.Minute)
		r.end()
		time.Sleep(2 * time.Second)
		mustMatch(t, r.returned(t), context.Canceled)
		tl.mustBe(t, `
			0s waiting
			0s acquired #1
			0s started #1
			1m0s stopping #1: shutdown
			1m2s child returns
			1m2s stopped #1
			1m2s release called
			1m2s released #1`)
	})
}

func TestLossStopsWaitsThenAsksForTheLeaseAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tl := newTimeline()
		r := serve(t, tl, highlander.ChildSpec{Service: untilTold(tl, 2*time.Second)})
		r.cluster.grant(t).lose(highlander.ErrConflict, 0)
		time.Sleep(3 * time.Second)
		r.cluster.grant(t)
		tl.mustBe(t, `
			0s waiting
			0s acquired #1
			0s started #1
			0s lost #1: another node holds the id
			0s stopping #1: another node holds the id
			2s child returns
			2s stopped #1
			2s release called
			2s waiting
			3s acquired #2
			3s started #2`)
	})
}

// The child finds exactly one of three causes, and the values of the context
// that Serve got, but neither its end nor its deadline.
func TestChildLearnsWhyItMustStop(t *testing.T) {
	type key struct{}
	for name, test := range map[string]struct {
		stop func(r *rig, lease *fakeLease)
		want error
	}{
		"shutdown":       {func(r *rig, _ *fakeLease) { r.end() }, highlander.ErrShutdown},
		"conflict":       {func(_ *rig, l *fakeLease) { l.lose(highlander.ErrConflict, 0) }, highlander.ErrConflict},
		"lease lost":     {func(_ *rig, l *fakeLease) { l.lose(highlander.ErrLeaseLost, 0) }, highlander.ErrLeaseLost},
		"cluster closed": {func(_ *rig, l *fakeLease) { l.lose(highlander.ErrClosed, 0) }, highlander.ErrLeaseLost},
		"lost and shutdown at once": {func(r *rig, l *fakeLease) {
			l.lose(highlander.ErrConflict, 0)
			r.end()
		}, highlander.ErrConflict},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var cause error
				child := func(ctx context.Context) error {
					if _, ok := ctx.Deadline(); ok || ctx.Value(key{}) != "value" {
						t.Errorf("deadline %v, value %v", ok, ctx.Value(key{}))
					}
					<-ctx.Done()
					cause = context.Cause(ctx)
					return nil
				}
				r := rigUp(newTimeline(), highlander.ChildSpec{Service: highlander.ServiceFunc(child)})
				ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "value"), time.Hour)
				defer cancel()
				r.end = cancel
				go r.Serve(ctx)
				lease := r.cluster.grant(t)
				test.stop(r, lease)
				synctest.Wait()
				if cause != test.want {
					t.Errorf("cause is %v, want %v", cause, test.want)
				}
				if !errors.Is(cause, highlander.ErrShutdown) {
					t.Errorf("cause %v does not match ErrShutdown", cause)
				}
			})
		})
	}
}

// Trap 3: the lease is not released under the feet of a child that takes too
// long, and a mere shutdown never exits.
func TestChildThatOverstaysShutdownKeepsItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tl := newTimeline()
		logs := &levels{tl: tl}
		r := rigUp(tl, highlander.ChildSpec{Service: untilTold(tl, 60*time.Second), Shutdown: 5 * time.Second},
			highlander.WithExitOnOverrun(), highlander.WithLogger(logs.warnings()))
		r.SetExit(func(int) { tl.add("exit") })
		r.start(t)
		r.cluster.grant(t)
		r.end()
		time.Sleep(time.Hour)
		mustMatch(t, r.returned(t), context.Canceled)
		const nag = "log WARN child is still running after its time to stop; the lease is kept until it returns"
		tl.mustBe(t, `
			0s waiting
			0s acquired #1
			0s started #1
			0s stopping #1: shutdown
			5s `+nag+`
			5s overrun #1: shutdown
			10s `+nag+`
			20s `+nag+`
			40s `+nag+`
			1m0s child returns
			1m0s stopped #1
			1m0s release called
			1m0s released #1`)
	})
}

func TestChildThatOutlivesALostLeaseOverrunsWhenOthersMayStart(t *testing.T) {
	for name, test := range map[string]struct {
		expiresIn time.Duration
		want      string
	}{
		"Expires is known":          {3 * time.Second, "2.8s overrun #1: lease lost\n2.8s exit 1"}, // before that
		"Expires is over already":   {-time.Second, "0s overrun #1: lease lost\n0s exit 1"},
		"else after Shutdown":       {0, "5s overrun #1: lease lost\n5s exit 1"},
		"the child is in time, 7 s": {7 * time.Second, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tl := newTimeline()
				r := rigUp(tl, highlander.ChildSpec{Service: untilTold(tl, 6*time.Second), Shutdown: 5 * time.Second},
					highlander.WithExitOnOverrun())
				r.SetExit(func(code int) { tl.add("exit %d", code) })
				r.start(t)
				lease := r.cluster.grant(t)
				if got, want := r.cluster.acquired[0].StopWithin, 5*time.Second+highlander.ExitMargin; got != want {
					t.Errorf("it wants to be told %v before others may start, not %v", got, want)
				}
				lease.lose(highlander.ErrLeaseLost, test.expiresIn)
				time.Sleep(6 * time.Second)
				tl.mustBe(t, `
					0s waiting
					0s acquired #1
					0s started #1
					0s lost #1: lease lost
					0s stopping #1: lease lost
					`+test.want+`
					6s child returns
					6s stopped #1
					6s release called
					6s waiting`)
			})
		})
	}
}

func TestOverrunAloneDoesNotExit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tl := newTimeline()
		r := rigUp(tl, highlander.ChildSpec{Service: untilTold(tl, 6*time.Second)})
		r.SetExit(func(code int) { t.Errorf("exit %d without WithExitOnOverrun", code) })
		r.start(t)
		r.cluster.grant(t).lose(highlander.ErrConflict, 0)
		time.Sleep(6 * time.Second)
		r.mustServe(t)
	})
}

// A log that goes into a full pipe, say, must not keep the process alive.
func TestExitOnOverrunDoesNotWaitForObservers(t *testing.T) {
	for cleanup, want := range map[time.Duration]string{
		time.Minute: "2.9s exit 1\n1m0s child returns",
		time.Second: "1s child returns",
	} {
		synctest.Test(t, func(t *testing.T) {
			tl := newTimeline()
			unblock := make(chan struct{})
			r := rigUp(tl, highlander.ChildSpec{Service: untilTold(tl, cleanup)}, highlander.WithExitOnOverrun(),
				highlander.WithObserver(func(e highlander.Event) {
					tl.event(e)
					if e.Kind == highlander.EventLost {
						<-unblock
					}
				}))
			r.SetExit(func(code int) { tl.add("exit %d", code) })
			r.start(t)
			r.cluster.grant(t).lose(highlander.ErrLeaseLost, 3*time.Second)
			time.Sleep(2 * time.Minute)
			tl.mustBe(t, `
				0s waiting
				0s acquired #1
				0s started #1
				0s lost #1: lease lost
				`+want)
			close(unblock)
		})
	}
}

// From the loss on, the moment counts at which others may start.
func TestLeaseLostWhileStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tl := newTimeline()
		var cause error
		child := func(ctx context.Context) error {
			err := untilTold(tl, 20*time.Second)(ctx)
			cause = context.Cause(ctx)
			return err
		}
		r := rigUp(tl, highlander.ChildSpec{Service: highlander.ServiceFunc(child)}, highlander.WithExitOnOverrun())
		r.SetExit(func(code int) { tl.add("exit %d", code) })
		r.start(t)
		lease := r.cluster.grant(t)
		r.end()
		time.Sleep(7 * time.Second)
		lease.lose(highlander.ErrLeaseLost, 4*time.Second)
		time.Sleep(time.Hour)
		mustMatch(t, r.returned(t), context.Canceled)
		if cause != highlander.ErrShutdown {
			t.Errorf("cause is %v, want the first one, ErrShutdown", cause)
		}
		tl.mustBe(t, `
			0s waiting
			0s acquired #1
			0s started #1
			0s stopping #1: shutdown
			5s overrun #1: shutdown
			7s lost #1: lease lost
			10.8s overrun #1: lease lost
			10.8s exit 1
			20s child returns
			20s stopped #1
			20s release called`)
	})
}

func TestContextEndsWhileStoppingForALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tl := newTimeline()
		r := serve(t, tl, highlander.ChildSpec{Service: untilTold(tl, 3*time.Second)})
		r.cluster.grant(t).lose(highlander.ErrConflict, 0)
		time.Sleep(time.Second)
		r.end()
		time.Sleep(time.Second)
		r.mustServe(t)
		time.Sleep(time.Second)
		mustMatch(t, r.returned(t), context.Canceled)
		tl.mustBe(t, `
			0s waiting
			0s acquired #1
			0s started #1
			0s lost #1: another node holds the id
			0s stopping #1: another node holds the id
			3s child returns
			3s stopped #1
			3s release called`)
	})
}

func TestClosedClusterEndsServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tl := newTimeline()
		r := serve(t, tl, highlander.ChildSpec{Service: untilTold(tl, time.Second)})
		r.cluster.grant(t).lose(highlander.ErrClosed, 0)
		time.Sleep(time.Second)
		mustMatch(t, r.returned(t), highlander.ErrClosed)
		tl.mustBe(t, `
			0s waiting
			0s acquired #1
			0s started #1
			0s lost #1: lease lost
			0s stopping #1: lease lost
			1s child returns
			1s stopped #1
			1s release called`)
	})
}

// Trap 4: whatever happens between the grant, or a failure, and the start of
// the child, it is not started without a live lease, nor after the end of ctx.
func TestChildIsNotStartedOnceItMustNotRun(t *testing.T) {
	for name, test := range map[string]struct {
		at   highlander.EventKind
		what func(r *rig, lease *fakeLease)
		want string
	}{
		"lost when acquired": {highlander.EventAcquired,
			func(_ *rig, l *fakeLease) { l.lose(highlander.ErrLeaseLost, 0) }, `
			0s waiting
			0s acquired #1
			0s lost #1: lease lost
			0s release called
			0s waiting`},
		"ended when acquired": {highlander.EventAcquired,
			func(r *rig, _ *fakeLease) { r.end() }, `
			0s waiting
			0s acquired #1
			0s release called
			0s released #1`},
		"lost when failed": {highlander.EventFailed,
			func(_ *rig, l *fakeLease) { l.lose(highlander.ErrConflict, 0) }, `
			0s waiting
			0s acquired #1
			0s started #1
			0s failed #1: boom
			0s lost #1: another node holds the id
			0s release called
			0s waiting`},
		"ended when failed": {highlander.EventFailed,
			func(r *rig, _ *fakeLease) { r.end() }, `
			0s waiting
			0s acquired #1
			0s started #1
			0s failed #1: boom
			0s release called
			0s released #1`},
		"lost and ended when failed": {highlander.EventFailed,
			func(r *rig, l *fakeLease) {
				r.end()
				l.lose(highlander.ErrConflict, 0)
			}, `
			0s waiting
			0s acquired #1
			0s started #1
			0s failed #1: boom
			0s lost #1: another node holds the id
			0s release called`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tl := newTimeline()
				var r *rig
				lease := make(chan *fakeLease, 1)
				child := func(context.Context) error { return errors.New("boom") }
				r = rigUp(tl, highlander.ChildSpec{Service: highlander.ServiceFunc(child)},
					highlander.WithObserver(func(e highlander.Event) {
						tl.event(e)
						if e.Kind == test.at {
							test.what(r, <-lease)
						}
					}))
				r.start(t)
				lease <- r.cluster.grant(t)
				tl.mustBe(t, test.want)
			})
		})
	}
}

// A child that fails at the very moment of the loss has been told to stop, so
// to speak: it is not restarted, and its failure is not counted.
func TestLossWinsOverAFailureOfTheSameMoment(t *testing.T) {
	for name, end := range map[string]func(r *rig, l *fakeLease){
		"lost":  func(_ *rig, l *fakeLease) { l.lose(highlander.ErrLeaseLost, 0) },
		"ended": func(r *rig, _ *fakeLease) { r.end() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tl := newTimeline()
				var r *rig
				var lease *fakeLease
				fail := make(chan bool)
				starts := 0
				child := func(ctx context.Context) error {
					starts++
					<-fail
					end(r, lease)
					return errors.New("boom")
				}
				r = rigUp(tl, highlander.ChildSpec{Service: highlander.ServiceFunc(child), MaxRestarts: -1})
				r.start(t)
				lease = r.cluster.grant(t)
				close(fail)
				synctest.Wait()
				if starts != 1 {
					t.Errorf("the child was started %d times, want once", starts)
				}
				select {
				case err := <-r.result:
					mustMatch(t, err, context.Canceled)
				default:
				}
			})
		})
	}
}

func TestLossCostsNoRestartAndForgetsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tl := newTimeline()
		fail := make(chan error)
		child := func(ctx context.Context) error {
			select {
			case err := <-fail:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		r := serve(t, tl, highlander.ChildSpec{Service: highlander.ServiceFunc(child), MaxRestarts: 1, Window: time.Minute})
		for range 10 {
			r.cluster.grant(t).lose(highlander.ErrConflict, 0)
		}
		r.cluster.grant(t)
		fail <- errors.New("first")
		synctest.Wait()
		if got := r.Status().Restarts; got != 1 {
			t.Errorf("%d restarts, want 1", got)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		tl := newTimeline()
		fail := make(chan error)
		child := func(ctx context.Context) error {
			select {
			case err := <-fail:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		r := serve(t, tl, highlander.ChildSpec{Service: highlander.ServiceFunc(child), MaxRestarts: 1, Window: time.Minute})
		lease := r.cluster.grant(t)
		fail <- errors.New("first")
		synctest.Wait()
		lease.lose(highlander.ErrConflict, 0)
		r.cluster.grant(t)
		fail <- errors.New("second")
		mustMatch(t, r.returned(t), highlander.ErrTooManyRestarts)
	})
}

func TestDoneChildKeepsTheLeaseUntilServeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tl := newTimeline()
		child := func(context.Context) error { return nil }
		r := serve(t, tl, highlander.ChildSpec{Service: highlander.ServiceFunc(child), Restart: highlander.Transient})
		r.cluster.grant(t)
		time.Sleep(time.Hour)
		r.mustServe(t)
		r.end()
		mustMatch(t, r.returned(t), context.Canceled)
		tl.mustBe(t, `
			0s waiting
			0s acquired #1
			0s started #1
			0s done #1
			1h0m0s release called
			1h0m0s released #1`)
	})
}

func TestDoneChildIsNotRunAgainAfterALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tl := newTimeline()
		child := func(context.Context) error { return errors.New("boom") }
		r := serve(t, tl, highlander.ChildSpec{Service: highlander.ServiceFunc(child), Restart: highlander.Temporary})
		r.cluster.grant(t).lose(highlander.ErrConflict, 0)
		r.cluster.grant(t)
		r.end()
		mustMatch(t, r.returned(t), context.Canceled)
		tl.mustBe(t, `
			0s waiting
			0s acquired #1
			0s started #1
			0s done #1: boom
			0s lost #1: another node holds the id
			0s release called
			0s waiting
			0s acquired #2
			0s release called
			0s released #2`)
	})
}

func TestClosedClusterEndsServeOfADoneChild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		child := func(context.Context) error { return nil }
		r := serve(t, newTimeline(), highlander.ChildSpec{Service: highlander.ServiceFunc(child), Restart: highlander.Transient})
		r.cluster.grant(t).lose(highlander.ErrClosed, 0)
		mustMatch(t, r.returned(t), highlander.ErrClosed)
	})
}

func TestReleaseWhenDone(t *testing.T) {
	boom := errors.New("boom")
	for name, test := range map[string]struct {
		restart highlander.Restart
		err     error
	}{
		"transient":        {highlander.Transient, nil},
		"temporary":        {highlander.Temporary, nil},
		"failed temporary": {highlander.Temporary, boom},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tl := newTimeline()
				child := func(context.Context) error { return test.err }
				r := serve(t, tl, highlander.ChildSpec{Service: highlander.ServiceFunc(child), Restart: test.restart},
					highlander.WithReleaseWhenDone())
				r.cluster.grant(t)
				if err := r.returned(t); err != test.err {
					t.Errorf("Serve returned %v, want %v", err, test.err)
				}
				done := "0s done #1"
				if test.err != nil {
					done += ": boom"
				}
				tl.mustBe(t, `
					0s waiting
					0s acquired #1
					0s started #1
					`+done+`
					0s release called
					0s released #1`)
			})
		})
	}
}

// A loss that is noticed only when the lease is to be released is a loss.
func TestLossInTheLastMomentIsNotARelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tl := newTimeline()
		lease := make(chan *fakeLease, 1)
		r := serve(t, tl, highlander.ChildSpec{Service: untilTold(tl, time.Second)},
			highlander.WithObserver(func(e highlander.Event) {
				tl.event(e)
				if e.Kind == highlander.EventStopped {
					(<-lease).lose(highlander.ErrLeaseLost, 0)
				}
			}))
		lease <- r.cluster.grant(t)
		r.end()
		time.Sleep(time.Second)
		mustMatch(t, r.returned(t), context.Canceled)
		tl.mustBe(t, `
			0s waiting
			0s acquired #1
			0s started #1
			0s stopping #1: shutdown
			1s child returns
			1s stopped #1
			1s lost #1: lease lost
			1s release called`)
	})
}

func TestReleaseHasAContextThatLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tl := newTimeline()
		r := rigUp(tl, highlander.ChildSpec{Service: untilTold(tl, time.Second)},
			highlander.WithLogger((&levels{tl: tl}).warnings()))
		r.cluster.release = func(ctx context.Context) error {
			if ctx.Err() != nil {
				t.Errorf("the context of Release has ended: %v", ctx.Err())
			}
			<-ctx.Done() // the server does not answer
			return ctx.Err()
		}
		r.start(t)
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
			1s stopped #1
			1s release called
			6s log WARN the cluster did not confirm the release; others may have to wait for the lease to run out
			6s released #1: context deadline exceeded`)
	})
}

func TestObserverThatPanicsChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tl := newTimeline()
		logs := &levels{tl: newTimeline()}
		r := serve(t, tl, highlander.ChildSpec{Service: untilTold(tl, time.Second)}, highlander.WithLogger(logs.warnings()),
			highlander.WithObserver(func(e highlander.Event) {
				tl.event(e)
				panic(e.Kind)
			}))
		r.cluster.grant(t)
		r.end()
		time.Sleep(time.Second)
		mustMatch(t, r.returned(t), context.Canceled)
		tl.mustBe(t, `
			0s waiting
			0s acquired #1
			0s started #1
			0s stopping #1: shutdown
			1s child returns
			1s stopped #1
			1s release called
			1s released #1`)
		logs.tl.mustBe(t, `
			0s log ERROR observer panicked
			0s log ERROR observer panicked
			0s log ERROR observer panicked
			0s log ERROR observer panicked
			1s log ERROR observer panicked
			1s log ERROR observer panicked`)
	})
}

// As t.FailNow does, in an observer or in the child. The child runs on the
// goroutine of Serve, which ends with it as it would without a Singleton.
func TestOrderHoldsWhenTheGoroutineOfServeIsEnded(t *testing.T) {
	untilTimeout := func(tl *timeline) highlander.Service {
		return highlander.ServiceFunc(func(context.Context) error {
			time.Sleep(time.Second)
			tl.add("child ends")
			runtime.Goexit()
			return nil
		})
	}
	for _, test := range []struct {
		name  string
		child func(*timeline) highlander.Service
		at    highlander.EventKind // the event at which the observer ends it; zero: none
		lose  bool                 // the lease is lost, otherwise ctx ends
		want  string
	}{
		{"by the observer before the child runs", func(tl *timeline) highlander.Service { return untilTold(tl, time.Second) }, highlander.EventStarted, false, `
			0s release called`},
		{"by the child", untilTimeout, 0, false, `
			1s child ends
			1s release called`},
		{"by the observer while the child stops", func(tl *timeline) highlander.Service { return untilTold(tl, time.Second) }, highlander.EventStopping, false, `
			1s child returns
			1s release called`},
		{"by the observer when the child has stopped", func(tl *timeline) highlander.Service { return untilTold(tl, time.Second) }, highlander.EventStopped, false, `
			1s child returns
			1s release called`},
		{"by the observer of a loss", func(tl *timeline) highlander.Service { return untilTold(tl, time.Second) }, highlander.EventLost, true, `
			1s child returns
			1s release called`},
		{"by the observer and by the child", untilTimeout, highlander.EventStopping, false, `
			1s child ends
			1s release called`},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tl := newTimeline()
				r := serve(t, tl, highlander.ChildSpec{Service: test.child(tl)}, highlander.WithObserver(func(e highlander.Event) {
					if e.Kind == test.at {
						runtime.Goexit()
					}
				}))
				lease := r.cluster.grant(t)
				if test.lose {
					lease.lose(highlander.ErrConflict, 0)
				} else {
					r.end()
				}
				time.Sleep(time.Second)
				tl.mustBe(t, test.want)
				if state := r.Status().State; state != highlander.Idle {
					t.Errorf("state is %v, want idle", state)
				}
			})
		})
	}
}
