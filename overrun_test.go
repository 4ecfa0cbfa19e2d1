package highlander_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"highlander"
	"highlander/highlandertest"
)

// stuck is a child that does not heed its context until the test frees it.
func stuck(tl *timeline) (child highlander.ServiceFunc, free func()) {
	freed := make(chan struct{})
	return func(context.Context) error {
		<-freed
		tl.add("child returns")
		return nil
	}, func() { close(freed) }
}

// exits puts the exit of the process on the timeline; here it goes on after it.
func (r *rig) exits() { r.SetExit(func(code int) { r.tl.add("exit %d", code) }) }

// Trap 6: Go's timers stand still while the machine sleeps. One that wakes after
// its lease ended has to see that at once, whatever it was about.
func TestMachineThatSleepsPastTheEndOfItsLeaseExitsWhenItWakes(t *testing.T) {
	for name, test := range map[string]struct {
		before func(*rig, *fakeLease)
		want   string
	}{
		"stopping after a loss": {
			before: func(r *rig, lease *fakeLease) { lease.lose(highlander.ErrLeaseLost, 10*time.Second) },
			want: `
				0s lost #1: lease lost
				0s stopping #1: lease lost
				1.05s -- the machine sleeps for 1h0m0s
				1.1s overrun #1: lease lost
				1.1s exit 1`,
		},
		"stopping because of ctx, and the lease is lost meanwhile": {
			before: func(r *rig, lease *fakeLease) {
				r.end()
				synctest.Wait()
				lease.lose(highlander.ErrLeaseLost, 10*time.Second)
			},
			want: `
				0s stopping #1: shutdown
				0s lost #1: lease lost
				1.05s -- the machine sleeps for 1h0m0s
				1.1s overrun #1: lease lost
				1.1s exit 1`,
		},
		"stopping because of ctx, with a lease that is kept": {
			before: func(r *rig, lease *fakeLease) { r.end() },
			want: `
				0s stopping #1: shutdown
				1.05s -- the machine sleeps for 1h0m0s
				1.1s overrun #1: shutdown`,
		},
		"running, and the engine has not woken yet": {
			before: func(r *rig, lease *fakeLease) { lease.renew(10 * time.Second) },
			want: `
				1.05s -- the machine sleeps for 1h0m0s
				1.1s log ERROR the lease has run out and the engine has not said so; ending the process
				1.1s exit 1`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tl := newTimeline()
				child, free := stuck(tl)
				opts := []highlander.Option{highlander.WithExitOnOverrun()}
				if strings.Contains(test.want, "log ERROR") {
					opts = append(opts, highlander.WithLogger((&levels{tl: tl}).warnings()))
				}
				r := rigUp(tl, highlander.ChildSpec{Service: child}, opts...)
				r.exits()
				r.cluster.onGrant = func(lease *fakeLease) { lease.renew(3 * time.Hour) }
				r.start(t)
				lease := r.cluster.grant(t)
				test.before(r, lease)
				time.Sleep(1050 * time.Millisecond)
				tl.suspend(time.Hour)
				time.Sleep(time.Second)
				tl.mustBe(t, "0s waiting\n0s acquired #1\n0s started #1\n"+test.want)
				free()
			})
		})
	}
}

// A suspend that does not reach the end of the lease takes nothing but its own
// length from the time that is left.
func TestMachineThatWakesInTimeGoesOnStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tl := newTimeline()
		child, free := stuck(tl)
		r := rigUp(tl, highlander.ChildSpec{Service: child}, highlander.WithExitOnOverrun())
		r.exits()
		r.start(t)
		r.cluster.grant(t).lose(highlander.ErrLeaseLost, 10*time.Second)
		time.Sleep(time.Second)
		tl.suspend(5 * time.Second)
		time.Sleep(time.Minute)
		tl.mustBe(t, `
			0s waiting
			0s acquired #1
			0s started #1
			0s lost #1: lease lost
			0s stopping #1: lease lost
			1s -- the machine sleeps for 5s
			4.8s overrun #1: lease lost
			4.8s exit 1`)
		free()
	})
}

// The lease moves on as it is renewed, also while the child takes its time to
// stop: then the process goes on, and says so.
func TestProcessGoesOnWhileTheLeaseIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tl := newTimeline()
		child, free := stuck(tl)
		r := rigUp(tl, highlander.ChildSpec{Service: child}, highlander.WithExitOnOverrun())
		r.exits()
		r.cluster.onGrant = func(lease *fakeLease) { lease.renew(3 * time.Second) }
		r.start(t)
		lease := r.cluster.grant(t)
		renewing := func(times int) {
			for range times {
				time.Sleep(time.Second)
				lease.renew(3 * time.Second)
			}
		}
		renewing(10)
		r.end()
		renewing(10)
		time.Sleep(time.Second) // this one is not acknowledged, nor are those after it
		lease.lose(highlander.ErrLeaseLost, 2*time.Second)
		time.Sleep(time.Minute)
		tl.mustBe(t, `
			0s waiting
			0s acquired #1
			0s started #1
			10s stopping #1: shutdown
			15s overrun #1: shutdown
			21s lost #1: lease lost
			22.8s overrun #1: lease lost
			22.8s exit 1`)
		free()
	})
}

// The exit does not depend on the goroutine that leads the life: a log handler
// or an observer may panic there, end it, or hang, in every state in which the
// child has to stop.
func TestNothingKeepsTheProcessFromExiting(t *testing.T) {
	over := make(chan struct{})
	for how, does := range map[string]func(){
		"panics":             func() { panic("log") },
		"ends the goroutine": runtime.Goexit,
		"hangs":              func() { <-over },
	} {
		for _, line := range []string{
			"lease lost",
			"telling the child to stop",
			"child is still running when its lease ends; ending the process",
		} {
			for _, shutdown := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s at %s, shutdown %v", how, line, shutdown), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						over = make(chan struct{})
						tl := newTimeline()
						child, free := stuck(tl)
						r := rigUp(tl, highlander.ChildSpec{Service: child}, highlander.WithExitOnOverrun(), highlander.WithObserver(nil),
							highlander.WithLogger(slog.New(strangeHandler{slog.DiscardHandler, line, does})))
						r.exits()
						ctx, end := context.WithCancel(t.Context())
						defer end()
						go func() {
							defer func() { _ = recover() }() // the panic goes on here
							_ = r.Serve(ctx)
						}()
						lease := r.cluster.grant(t)
						if shutdown {
							end()
						}
						time.Sleep(time.Second)
						lease.lose(highlander.ErrLeaseLost, 3*time.Second)
						time.Sleep(time.Minute)
						tl.mustBe(t, "3.9s exit 1")
						close(over)
						free()
					})
				})
			}
		}
	}
}

// The engine is late, and the line that says so makes the log handler panic, in
// a goroutine where nobody could recover it.
func TestPanicOfTheLogWhenTheEngineIsLateIsNotTheLastWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tl := newTimeline()
		child, free := stuck(tl)
		r := rigUp(tl, highlander.ChildSpec{Service: child}, highlander.WithExitOnOverrun(),
			highlander.WithLogger(slog.New(strangeHandler{slog.DiscardHandler,
				"the lease has run out and the engine has not said so; ending the process", func() { panic("log") }})))
		r.exits()
		r.cluster.onGrant = func(lease *fakeLease) { lease.renew(3 * time.Second) }
		r.start(t)
		r.cluster.grant(t)
		time.Sleep(time.Minute)
		tl.mustBe(t, "0s waiting\n0s acquired #1\n0s started #1\n2.8s exit 1")
		free()
	})
}

// An engine that hangs renews nothing: what it said last counts, also if it did
// say that the lease is lost.
func TestEngineThatHangsDoesNotKeepTheProcessFromExiting(t *testing.T) {
	for name, test := range map[string]struct {
		lost bool
		want string
	}{
		"and says nothing":            {false, "3.8s exit 1"},
		"having said that it is lost": {true, "3.9s exit 1"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tl := newTimeline()
				child, free := stuck(tl)
				r := rigUp(tl, highlander.ChildSpec{Service: child}, highlander.WithExitOnOverrun())
				r.exits()
				r.cluster.onGrant = func(lease *fakeLease) { lease.renew(3 * time.Second) }
				r.start(t)
				lease := r.cluster.grant(t)
				time.Sleep(time.Second)
				lease.renew(3 * time.Second)
				time.Sleep(time.Second)
				hangs := make(chan struct{})
				lease.hang(hangs)
				if test.lost {
					lease.lose(highlander.ErrLeaseLost, 0)
				}
				time.Sleep(time.Minute)
				tl.mustBe(t, "0s waiting\n0s acquired #1\n0s started #1\n"+test.want)
				close(hangs)
				free()
			})
		})
	}
}

// An engine may know only with the loss when others may start, and soon.
func TestEndOfTheLeaseThatComesWithTheLossCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tl := newTimeline()
		child, free := stuck(tl)
		over := make(chan struct{})
		r := rigUp(tl, highlander.ChildSpec{Service: child}, highlander.WithExitOnOverrun(), highlander.WithObserver(nil),
			highlander.WithLogger(slog.New(strangeHandler{slog.DiscardHandler, "lease lost", func() { <-over }})))
		r.exits()
		r.start(t)
		lease := r.cluster.grant(t)
		time.Sleep(1010 * time.Millisecond)
		lease.lose(highlander.ErrLeaseLost, 250*time.Millisecond)
		time.Sleep(time.Minute)
		tl.mustBe(t, "1.16s exit 1") // 50 ms later it is overdue, and the log may hang for 100 ms
		close(over)
		free()
	})
}

// strangeHandler does something strange at one line of the log.
type strangeHandler struct {
	slog.Handler
	line string
	does func()
}

func (strangeHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h strangeHandler) WithAttrs([]slog.Attr) slog.Handler     { return h }

func (h strangeHandler) Handle(_ context.Context, r slog.Record) error {
	if r.Message == h.line {
		h.does()
	}
	return nil
}

// overrunEnv makes the test binary a process whose child does not stop. Its
// value says what ends: the lease or the context of Serve.
const overrunEnv = "HIGHLANDER_TEST_OVERRUN"

func overrunForReal() {
	cluster := highlandertest.New()
	ctx, cancel := context.WithCancel(context.Background())
	child := func(ctx context.Context) error {
		if os.Getenv(overrunEnv) == "lease" {
			cluster.Expire("stuck")
		} else {
			cancel()
		}
		<-ctx.Done()
		select {} // it does not stop
	}
	overrun := func(e highlander.Event) {
		if e.Kind == highlander.EventOverrun && e.Err == highlander.ErrShutdown {
			fmt.Println("still there after the overrun")
			os.Exit(3)
		}
	}
	err := highlander.Wrap(cluster.Node("a"), highlander.ChildSpec{
		ID:       "stuck",
		Service:  highlander.ServiceFunc(child),
		Shutdown: 2 * time.Second, // by then it has logged what happens
	}, highlander.WithExitOnOverrun(), highlander.WithObserver(overrun)).Serve(ctx)
	fmt.Println("Serve returned", err)
	os.Exit(4)
}

// The real thing, in a process of its own: goroutines cannot be killed, the
// process can. It must happen for a lost lease and only for that. On a machine
// that is too busy to log within exitGrace there is no last word.
func TestExitOnOverrunEndsTheProcess(t *testing.T) {
	for ends, want := range map[string]struct {
		code   int
		output string
	}{
		"lease":   {1, "telling the child to stop"},
		"context": {3, "still there after the overrun"},
	} {
		t.Run(ends, func(t *testing.T) {
			t.Parallel()
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), self)
			cmd.Env = append(os.Environ(), overrunEnv+"="+ends)
			output, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != want.code {
				t.Errorf("process ended with %v, want exit code %d", err, want.code)
			}
			if !strings.Contains(string(output), want.output) {
				t.Errorf("output is\n%s\nwant %q in it", output, want.output)
			}
		})
	}
}
