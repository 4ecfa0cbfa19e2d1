package highlander_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"highlander"
)

var errBoom = errors.New("boom")

// OTP: permanent children are always restarted, transient ones if they failed,
// temporary ones never.
func TestRestartTypes(t *testing.T) {
	returns := func(err error) highlander.ServiceFunc {
		return func(context.Context) error { return err }
	}
	const restarted, done = "restarted", "done"
	for _, test := range []struct {
		name    string
		restart highlander.Restart
		child   highlander.ServiceFunc
		want    string
		failure string
	}{
		{"permanent, nil", highlander.Permanent, returns(nil), restarted, "the child returned nil, but it is permanent"},
		{"permanent, error", highlander.Permanent, returns(errBoom), restarted, "boom"},
		{"permanent, panic", highlander.Permanent, panics, restarted, "panic: boom"},
		{"transient, nil", highlander.Transient, returns(nil), done, ""},
		{"transient, error", highlander.Transient, returns(errBoom), restarted, "boom"},
		{"transient, panic", highlander.Transient, panics, restarted, "panic: boom"},
		{"temporary, nil", highlander.Temporary, returns(nil), done, ""},
		{"temporary, error", highlander.Temporary, returns(errBoom), done, "boom"},
		{"temporary, panic", highlander.Temporary, panics, done, "panic: boom"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tl := newTimeline()
				runs := 0
				first := func(ctx context.Context) error {
					if runs++; runs == 1 {
						return test.child(ctx)
					}
					<-ctx.Done()
					return nil
				}
				r := serve(t, tl, highlander.ChildSpec{Service: highlander.ServiceFunc(first), Restart: test.restart})
				r.cluster.grant(t)
				want := "0s waiting\n0s acquired #1\n0s started #1\n"
				switch {
				case test.want == restarted:
					want += "0s failed #1: " + test.failure + "\n0s started #1"
				case test.failure != "":
					want += "0s done #1: " + test.failure
				default:
					want += "0s done #1"
				}
				tl.mustBe(t, want)
			})
		})
	}
}

// OTP: with intensity n and period p, n restarts within p are allowed, and one
// more ends the supervisor. A failure costs nothing once it is older than p.
func TestRestartIntensity(t *testing.T) {
	seconds := func(n ...int) []int { return n }
	for _, test := range []struct {
		name        string
		maxRestarts int
		window      time.Duration
		failAt      []int // seconds
		gaveUp      bool  // at the last failure
	}{
		{"defaults: three restarts", 0, 0, seconds(0, 1, 2), false},
		{"defaults: the fourth in 5 s is one too many", 0, 0, seconds(0, 1, 2, 3), true},
		{"defaults: the fourth exactly 5 s after the first", 0, 0, seconds(0, 1, 2, 5), true},
		{"defaults: the fourth after more than 5 s", 0, 0, seconds(0, 1, 2, 6), false},
		{"defaults: the window slides", 0, 0, seconds(0, 2, 4, 6, 8, 10, 11), true},
		{"defaults: at a slow pace for ever", 0, 0, seconds(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20), false},
		{"negative: none", -1, 0, seconds(0), true},
		{"negative, even if long ago", -7, time.Second, seconds(3600), true},
		{"one in a minute", 1, time.Minute, seconds(0, 61, 122, 182), true},
		{"one in a minute, in time", 1, time.Minute, seconds(0, 61, 122, 183), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fail := make(chan error)
				child := func(ctx context.Context) error {
					select {
					case err := <-fail:
						return err
					case <-ctx.Done():
						return nil
					}
				}
				tl := newTimeline()
				r := serve(t, tl, highlander.ChildSpec{
					Service:     highlander.ServiceFunc(child),
					MaxRestarts: test.maxRestarts,
					Window:      test.window,
				})
				r.cluster.grant(t)
				for i, at := range test.failAt {
					if i > 0 {
						r.mustServe(t)
					}
					time.Sleep(time.Duration(at)*time.Second - time.Since(tl.start))
					fail <- errBoom
				}
				if !test.gaveUp {
					r.mustServe(t)
					if got := r.Status().Restarts; got != len(test.failAt) {
						t.Errorf("%d restarts, want %d", got, len(test.failAt))
					}
					return
				}
				mustMatch(t, r.returned(t), highlander.ErrTooManyRestarts, errBoom)
			})
		})
	}
}

func TestGivingUpReleasesTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tl := newTimeline()
		child := func(context.Context) error { return errBoom }
		r := serve(t, tl, highlander.ChildSpec{Service: highlander.ServiceFunc(child), MaxRestarts: 1, Window: time.Minute})
		r.cluster.grant(t)
		err := r.returned(t)
		const line = `too many restarts of child "worker": more than 1 within 1m0s; the last failure: boom`
		if err == nil || err.Error() != "highlander: "+line {
			t.Errorf("error is %v", err)
		}
		tl.mustBe(t, `
			0s waiting
			0s acquired #1
			0s started #1
			0s failed #1: boom
			0s started #1
			0s failed #1: boom
			0s gave-up #1: `+line+`
			0s release called
			0s released #1`)
	})
}

func TestServeAgainStartsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		child := func(context.Context) error { return errBoom }
		r := serve(t, newTimeline(), highlander.ChildSpec{Service: highlander.ServiceFunc(child), MaxRestarts: 2})
		for range 3 {
			r.cluster.grant(t)
			mustMatch(t, r.returned(t), highlander.ErrTooManyRestarts)
			if got := r.Status().Restarts; got != 2 {
				t.Errorf("%d restarts, want 2", got)
			}
			r.start(t)
		}
	})
}

func TestServeTwiceAtOnceIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tl := newTimeline()
		r := serve(t, tl, highlander.ChildSpec{Service: untilTold(tl, 0)})
		want := `highlander: child "worker": Serve is already running on this Singleton; Wrap the child again for another one`
		if err := r.Serve(t.Context()); err == nil || err.Error() != want {
			t.Errorf("while waiting, a second Serve returned %v", err)
		}
		r.cluster.grant(t)
		if err := r.Serve(t.Context()); err == nil || err.Error() != want {
			t.Errorf("while running, a second Serve returned %v", err)
		}
		r.mustServe(t)
		if state := r.Status().State; state != highlander.Running {
			t.Errorf("state is %v after a refused Serve, want running", state)
		}
	})
}

func TestPanicCarriesValueAndStack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("cause")
		child := func(context.Context) error { panic(cause) }
		r := serve(t, newTimeline(), highlander.ChildSpec{Service: highlander.ServiceFunc(child), MaxRestarts: -1})
		r.cluster.grant(t)
		err := r.returned(t)
		mustMatch(t, err, highlander.ErrTooManyRestarts, cause)
		var panicked *highlander.PanicError
		if !errors.As(err, &panicked) {
			t.Fatalf("no PanicError in %v", err)
		}
		if panicked.Value != cause || !strings.Contains(string(panicked.Stack), "TestPanicCarriesValueAndStack") {
			t.Errorf("value %v, stack\n%s", panicked.Value, panicked.Stack)
		}
	})
}

// What a child leaves behind under its context ends with it.
func TestContextOfAChildEndsWithTheChild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leftOver := make(chan struct{})
		child := func(ctx context.Context) error {
			go func() {
				<-ctx.Done()
				close(leftOver)
			}()
			return nil
		}
		r := serve(t, newTimeline(), highlander.ChildSpec{Service: highlander.ServiceFunc(child), Restart: highlander.Temporary})
		r.cluster.grant(t)
		<-leftOver
		r.mustServe(t)
	})
}
