//go:build linux

package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	contextOfTests = context.Background()
	discard        = slog.New(slog.DiscardHandler)
)

// outcome is what Run returned.
type outcome struct {
	exit Exit
	err  error
}

// startGuard starts a guard whose highlander is this process.
func startGuard(t testing.TB) *Guard {
	t.Helper()
	g, err := Start(t.Context(), testOptions())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// testOptions are those of all guards of this run of the tests.
func testOptions() Options { return Options{Logger: discard, noCgroup: os.Getenv(noCgroupEnv) != ""} }

// Everything holds where no cgroup can be made, too. What needs one is skipped
// there.
func TestWithoutCgroup(t *testing.T) {
	if os.Getenv(noCgroupEnv) != "" {
		t.Skip("this is the run without")
	}
	if testing.Short() || raceEnabled {
		t.Skip("takes as long as the whole rest; go test without -short and -race does it")
	}
	cmd := exec.CommandContext(t.Context(), executable(t), "-test.v")
	cmd.Env = append(os.Environ(), noCgroupEnv+"=1")
	output, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, output)
	}
	if !strings.Contains(string(output), "--- PASS: TestNothingSurvivesDeathOf") {
		t.Errorf("it tested nothing:\n%s", output)
	}
}

// inBackground runs cmd in the background.
func (g *Guard) inBackground(ctx context.Context, cmd Command) <-chan outcome {
	c := make(chan outcome, 1)
	go func() {
		exit, err := g.Run(ctx, cmd)
		c <- outcome{exit, err}
	}()
	return c
}

func (g *Guard) pids() (guard, keeper int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.link.guard.Process.Pid, g.link.keeperPID
}

func await(t testing.TB, c <-chan outcome) outcome {
	t.Helper()
	select {
	case o := <-c:
		return o
	case <-time.After(safetyNet):
		t.Fatal("Run did not return")
		panic("unreachable")
	}
}

func want(t testing.TB, o outcome, code int, err error) {
	t.Helper()
	if o.exit.Code != code || !errors.Is(o.err, err) {
		t.Errorf("Run returned exit code %d and error %v; want %d and %v", o.exit.Code, o.err, code, err)
	}
}

func TestNothingSurvivesDeathOf(t *testing.T) {
	for _, tc := range []struct {
		name    string
		rounds  int
		victims func(h *highlander) []int
		ends    bool // highlander with them
	}{
		{"highlander", 20, func(h *highlander) []int { return []int{h.cmd.Process.Pid} }, true},
		{"guard", 20, func(h *highlander) []int { return []int{h.guard} }, false},
		{"highlander and guard", 20, func(h *highlander) []int { return []int{h.cmd.Process.Pid, h.guard} }, true},
		{"keeper", 10, func(h *highlander) []int { return []int{h.keeper} }, false},
		{"highlander and keeper", 5, func(h *highlander) []int { return []int{h.cmd.Process.Pid, h.keeper} }, true},
		{"guard and keeper", 10, func(h *highlander) []int { return []int{h.guard, h.keeper} }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for range tc.rounds {
				hall := newHall(t)
				h := launch(t, hall.command(t, aTree...), nil)
				h.ready(t)
				h.tell(t, "run")
				members := hall.wait(t, 4)
				strike(t, tc.victims(h)...)
				if !tc.ends {
					if got := h.report(t); !strings.Contains(got, ErrGuardDied.Error()) {
						t.Errorf("highlander reported %q", got)
					}
					mustBeGone(t, members)
				}
				waitEnd(t, members)
				h.waitAllGone(t)
			}
		})
	}
}

// A process may die at any point of the start of a command: the tree must be
// gone or never begin.
func TestNothingSurvivesDeathDuringStartOf(t *testing.T) {
	for _, tc := range []struct {
		name    string
		victims func(h *highlander) []int
		ends    bool
	}{
		{"highlander", func(h *highlander) []int { return []int{h.cmd.Process.Pid} }, true},
		{"guard", func(h *highlander) []int { return []int{h.guard} }, false},
		{"highlander and guard", func(h *highlander) []int { return []int{h.cmd.Process.Pid, h.guard} }, true},
		{"keeper", func(h *highlander) []int { return []int{h.keeper} }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var whole time.Duration // from the order to run to the last process
			for round := range 21 {
				hall := newHall(t)
				h := launch(t, hall.command(t, aTree...), nil)
				h.ready(t)
				begin := time.Now()
				h.tell(t, "run")
				if round == 0 {
					hall.wait(t, 4)
					whole = time.Since(begin)
				} else {
					// Not waiting for anything: this is the random point.
					time.Sleep(rand.N(whole))
				}
				strike(t, tc.victims(h)...)
				if !tc.ends {
					_ = h.report(t) // ended
					if left := h.left(); len(left) > 1 {
						t.Fatalf("Run returned, yet there are %v", left)
					}
				}
				h.waitAllGone(t)
			}
		})
	}
}

// Highlander may die before its guard has a keeper.
func TestNothingSurvivesDeathOfHighlanderWhileTheGuardStarts(t *testing.T) {
	begin := time.Now()
	launch(t, Command{}, nil).ready(t)
	whole := time.Since(begin)
	for range 20 {
		h := launch(t, Command{}, nil)
		time.Sleep(rand.N(whole)) // the random point
		strike(t, h.cmd.Process.Pid)
		h.waitAllGone(t)
	}
}

// When nobody is left to act, the kernel ends the process that the keeper
// forked, and no other.
func TestMainProcessDiesWithHighlanderGuardAndKeeperAtOnce(t *testing.T) {
	for range 20 {
		hall := newHall(t)
		h := launch(t, hall.command(t, "join", "hold"), nil)
		h.ready(t)
		h.tell(t, "run")
		members := hall.wait(t, 1)
		strike(t, h.cmd.Process.Pid, h.guard, h.keeper)
		waitEnd(t, members)
		h.waitAllGone(t)
	}
}

// deadlineIsKept runs a command of four processes, freezes victims, and returns
// when the deadline has ended it. None of them had to be killed for that.
func deadlineIsKept(t *testing.T, victims func(h *highlander) []int, words ...string) {
	t.Helper()
	withMoreTime(t, func(limit time.Duration) (late string) {
		hall := newHall(t)
		h := launch(t, hall.command(t, append(words, "join", "report-signals", "hold")...), nil)
		h.ready(t)
		h.tell(t, "run")
		members := hall.wait(t, 4)
		for _, m := range members {
			m.next(t) // listening
		}
		main := members[mainProcess(members)]
		begin := time.Now()
		h.tell(t, "deadline %v", limit)
		h.tell(t, "signal")
		main.lines.Scan() // once heard, the keeper knows the deadline too
		frozen := victims(h)
		if !standStill(t, frozen...) || time.Since(begin) > limit {
			late = "the deadline was over before all stood still"
		}
		waitEnd(t, members)
		for _, pid := range frozen {
			if late != "" || strings.Trim(threadStates(pid), "ZX") != "" {
				continue
			}
			if time.Since(begin) > limit+keeperGrace {
				late = "the frozen were looked at after others had lost their patience"
			} else {
				t.Errorf("process %d had to be killed first", pid)
			}
		}
		thaw(frozen...) // highlander learns of it
		got := h.report(t)
		if !strings.Contains(got, ErrDeadline.Error()) && !strings.Contains(got, ErrGuardDied.Error()) {
			t.Errorf("highlander reported %q", got)
		}
		h.waitAllGone(t)
		return late
	})
}

// mainProcess returns which of the processes of a command leads its group.
func mainProcess(members []*member) int {
	return slices.IndexFunc(members, func(m *member) bool {
		p, ok := readProcess(m.pid)
		return ok && p.pid == p.group && p.session != p.pid
	})
}

var frozenOnes = map[string]func(h *highlander) []int{
	"nobody":                func(h *highlander) []int { return nil },
	"highlander":            func(h *highlander) []int { return []int{h.cmd.Process.Pid} },
	"highlander and guard":  func(h *highlander) []int { return []int{h.cmd.Process.Pid, h.guard} },
	"highlander and keeper": func(h *highlander) []int { return []int{h.cmd.Process.Pid, h.keeper} },
	"guard and keeper":      func(h *highlander) []int { return []int{h.guard, h.keeper} },
}

func TestDeadlineIsKeptWithFrozen(t *testing.T) {
	for name, victims := range frozenOnes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			deadlineIsKept(t, victims, "fork", "fork")
		})
	}
}

// Whoever of the three is left reaches daemons, too, without help of the frozen.
func TestDeadlineReachesDaemonsWithFrozen(t *testing.T) {
	for name, victims := range frozenOnes {
		for _, fork := range []string{"fork-setsid", "fork-daemon"} {
			t.Run(name+"/"+fork, func(t *testing.T) {
				t.Parallel()
				deadlineIsKept(t, victims, fork, fork)
			})
		}
	}
}

// The keeper stands still after it has forked the command and before it says so:
// nobody knows the process group.
func TestDeadlineEndsACommandThatWasNotReported(t *testing.T) {
	for name, victims := range map[string]func(h *highlander) []int{
		"highlander": func(h *highlander) []int { return []int{h.cmd.Process.Pid} },
		"guard":      func(h *highlander) []int { return []int{h.guard} },
	} {
		t.Run(name+" frozen too", func(t *testing.T) {
			t.Parallel()
			withMoreTime(t, func(limit time.Duration) (late string) {
				hall := newHall(t)
				h := launch(t, hall.command(t, "fork-setsid", "fork-setsid", "join", "hold"), nil)
				h.ready(t)
				ended := holdAfterFork(t, h.keeper)
				h.tell(t, "run")
				members := hall.wait(t, 4)
				begin := time.Now()
				h.tell(t, "deadline %v", limit)
				h.tell(t, "certificate")
				frozen := victims(h)
				told := h.report(t) // and so the guard is told
				if told != "certified" || !standStill(t, frozen...) || time.Since(begin) > limit {
					late = "the deadline was over before all stood still"
				}
				waitEnd(t, members)
				<-ended
				if after := time.Since(begin) - limit; late == "" && after > keeperGrace {
					late = fmt.Sprintf("the command ended %v late, for lack of patience with the keeper", after)
				}
				thaw(frozen...)
				if told == "certified" {
					told = h.report(t)
				}
				if !strings.Contains(told, ErrGuardDied.Error()) {
					t.Errorf("highlander reported %q", told)
				}
				h.waitAllGone(t)
				return late
			})
		})
	}
}

// A keeper may stand still between its look at the deadline and the start of the
// command. As the others see it, it does so as well when it does not get to look:
// at the deadline it must die, lest it start the command when it goes on.
func TestKeeperThatDidNotStartACommandMustNotOutliveTheDeadline(t *testing.T) {
	for name, victims := range map[string]func(h *highlander) []int{
		"keeper":           func(h *highlander) []int { return []int{h.keeper} },
		"guard and keeper": frozenOnes["guard and keeper"],
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			withMoreTime(t, func(limit time.Duration) (late string) {
				hall := newHall(t)
				h := launch(t, hall.command(t, "join", "hold"), nil)
				h.ready(t)
				frozen := victims(h)
				freeze(t, frozen...)
				begin := time.Now()
				h.tell(t, "deadline %v", limit)
				h.tell(t, "run")
				for late == "" && strings.Trim(threadStates(h.keeper), "ZX") != "" {
					if after := time.Since(begin) - limit; after > keeperGrace {
						late = fmt.Sprintf("the keeper lives on %v after the deadline", after)
					}
					runtime.Gosched()
				}
				thaw(frozen...)
				if got := h.report(t); late == "" && !strings.Contains(got, ErrGuardDied.Error()) {
					t.Errorf("highlander reported %q", got)
				}
				h.waitAllGone(t)
				if len(hall.joined) > 0 {
					t.Error("the command was started")
				}
				return late
			})
		})
	}
}

// The deadline may pass at any point of a start. All goes on as usual after that.
func TestDeadlineDuringStart(t *testing.T) {
	g, hall := startGuard(t), newHall(t)
	for range 50 {
		g.SetDeadline(time.Now().Add(rand.N(4 * time.Millisecond)))
		o := await(t, g.inBackground(t.Context(), hall.command(t, "join", "hold")))
		if !errors.Is(o.err, ErrDeadline) && !errors.Is(o.err, ErrGuardDied) {
			t.Fatalf("Run returned %+v", o)
		}
		g.SetDeadline(time.Time{})
		o = await(t, g.inBackground(t.Context(), hall.command(t, "exit:3")))
		if errors.Is(o.err, ErrGuardDied) { // it took the keeper, slow to report the last end, for frozen
			o = await(t, g.inBackground(t.Context(), hall.command(t, "exit:3")))
		}
		want(t, o, 3, nil)
	}
}

func TestCommandOutlivesDeadlineThatWasMoved(t *testing.T) {
	g, hall := startGuard(t), newHall(t)
	withMoreTime(t, func(limit time.Duration) (late string) {
		g.SetDeadline(time.Time{})
		ended := g.inBackground(t.Context(), hall.command(t, "join", "report-signals", "hold"))
		m := hall.wait(t, 1)[0]
		m.next(t) // listening
		first := time.Now().Add(limit)
		g.SetDeadline(first)
		g.SetDeadline(time.Now().Add(safetyNet))
		<-time.After(time.Until(first) + 50*time.Millisecond)
		g.Signal(syscall.SIGUSR1)
		if !m.lines.Scan() {
			await(t, ended)
			return "the command was killed at the first deadline"
		}
		if got := m.lines.Text(); got != syscall.SIGUSR1.String() {
			t.Errorf("the command reported %q", got)
		}
		g.Signal(syscall.SIGKILL)
		want(t, await(t, ended), 128+9, nil)
		return ""
	})
}

func TestNothingStartsAfterTheDeadline(t *testing.T) {
	g, hall := startGuard(t), newHall(t)
	g.SetDeadline(time.Now().Add(-time.Hour))
	for len(g.expiry.C) == 0 { // nobody takes it for a guard that is frozen
		runtime.Gosched()
	}
	_, err := g.Run(t.Context(), hall.command(t, "join", "hold"))
	want(t, outcome{err: err}, 0, ErrDeadline)

	// Nor when highlander was frozen between its own look at the clock and the
	// order to start.
	if m := g.orderStart(t, hall.command(t, "join", "hold")); m.Kind != msgFailed || !m.Expired {
		t.Errorf("the keeper reported %+v", m)
	}

	// A deadline moved on, as with a new lease, makes it possible again.
	g.SetDeadline(time.Now().Add(safetyNet))
	want(t, await(t, g.inBackground(t.Context(), hall.command(t, "exit:3"))), 3, nil)
}

func TestFrozenGuardCannotKeepACommandFromStopping(t *testing.T) {
	t.Parallel()
	g, hall := startGuard(t), newHall(t)
	ctx, cancel := context.WithCancel(t.Context())
	c := hall.command(t, append([]string{"ignore-term"}, aTree...)...)
	c.Shutdown = 0
	ended := g.inBackground(ctx, c)
	members := hall.wait(t, 4)
	guard, _ := g.pids()
	freeze(t, guard)
	cancel()
	want(t, await(t, ended), 0, ErrGuardDied)
	mustBeGone(t, members)
}

// No deadline is set here: the keeper itself sees that highlander is gone, and
// the guard that the keeper does not answer.
func TestNothingSurvivesHighlanderWithAFrozen(t *testing.T) {
	for _, tc := range []struct {
		name   string
		victim func(h *highlander) int
	}{
		{"guard", func(h *highlander) int { return h.guard }},
		{"keeper", func(h *highlander) int { return h.keeper }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			hall := newHall(t)
			h := launch(t, hall.command(t, aTree...), nil)
			h.ready(t)
			h.tell(t, "run")
			members := hall.wait(t, 4)
			freeze(t, tc.victim(h))
			strike(t, h.cmd.Process.Pid)
			waitEnd(t, members)
			if tc.victim(h) == h.guard { // nobody is left to kill it
				_ = syscall.Kill(h.guard, syscall.SIGCONT)
			}
			h.waitAllGone(t)
		})
	}
}

// A guard that was frozen for long may know a process group that is gone, and
// whose number is another's now.
func TestReusedProcessGroupIsNotKilled(t *testing.T) {
	hall := newHall(t)
	stranger := exec.Command(executable(t), commandMode, "join", "report-signals", "hold")
	stranger.Env = append(os.Environ(), "HALL="+hall.path)
	stranger.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // in another session than a guard's
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stranger.Wait() }()
	defer func() { _ = stranger.Process.Kill() }()
	m := hall.wait(t, 1)[0]
	m.next(t) // listening
	killGroup(m.pid, session()+1)
	_ = syscall.Kill(m.pid, syscall.SIGUSR1)
	if got := m.next(t); got != syscall.SIGUSR1.String() {
		t.Errorf("the stranger reported %q", got)
	}
	killGroup(m.pid, session())
	m.waitEnd(t)
}

func TestFrozenKeeperCannotKeepACommandFromStopping(t *testing.T) {
	t.Parallel()
	g, hall := startGuard(t), newHall(t)
	ctx, cancel := context.WithCancel(t.Context())
	c := hall.command(t, append([]string{"ignore-term"}, aTree...)...)
	c.Shutdown = 0
	ended := g.inBackground(ctx, c)
	members := hall.wait(t, 4)
	_, keeper := g.pids()
	freeze(t, keeper)
	cancel()
	want(t, await(t, ended), 0, ErrGuardDied)
	mustBeGone(t, members)
}

func TestSignalsArePassedOn(t *testing.T) {
	g, hall := startGuard(t), newHall(t)
	ended := g.inBackground(t.Context(), hall.command(t, "fork", "join", "report-signals", "hold"))
	members := hall.wait(t, 2) // the whole group gets them
	for _, m := range members {
		m.next(t) // listening
	}
	for _, sig := range forwarded {
		g.Signal(sig.(syscall.Signal))
		for _, m := range members {
			if got := m.next(t); got != sig.String() {
				t.Errorf("process %d reported %q, want %q", m.pid, got, sig)
			}
		}
	}
	g.Signal(syscall.SIGKILL)
	want(t, await(t, ended), 128+9, nil)
	mustBeGone(t, members)
}

// Signals for highlander's process group, and signals by mistake, do not end
// the helpers.
func TestHelpersAreDeafToSignals(t *testing.T) {
	g, hall := startGuard(t), newHall(t)
	ended := g.inBackground(t.Context(), hall.command(t, "join", "report-signals", "hold"))
	m := hall.wait(t, 1)[0]
	m.next(t)
	guard, keeper := g.pids()
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGTSTP} {
		for _, pid := range []int{-guard, -keeper} {
			if err := syscall.Kill(pid, sig); err != nil {
				t.Fatal(err)
			}
		}
	}
	g.Signal(syscall.SIGUSR2) // the first that the command hears of
	if got := m.next(t); got != syscall.SIGUSR2.String() {
		t.Errorf("the command reported %q", got)
	}
	g.Signal(syscall.SIGKILL)
	want(t, await(t, ended), 128+9, nil)
}

func TestExitCodeIsThatOfTheCommand(t *testing.T) {
	g, hall := startGuard(t), newHall(t)
	for _, tc := range []struct {
		words  []string
		code   int
		signal syscall.Signal
	}{
		{[]string{"exit:0"}, 0, 0},
		{[]string{"exit:3"}, 3, 0},
		{[]string{"exit:255"}, 255, 0},
		{[]string{"die:9"}, 128 + 9, syscall.SIGKILL},
		{[]string{"die:15"}, 128 + 15, syscall.SIGTERM},
	} {
		exit, err := g.Run(t.Context(), hall.command(t, tc.words...))
		if err != nil || exit.Code != tc.code || exit.Signal != tc.signal {
			t.Errorf("%v: Run returned %+v, %v", tc.words, exit, err)
		}
	}
}

func TestEndOfContextStopsTheWholeGroup(t *testing.T) {
	g, hall := startGuard(t), newHall(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := g.inBackground(ctx, hall.command(t, aTree...))
	members := hall.wait(t, 4)
	cancel()
	want(t, await(t, ended), 128+15, nil)
	mustBeGone(t, members)
	cancelled := g.inBackground(ctx, hall.command(t, "exit:0"))
	want(t, await(t, cancelled), 0, context.Canceled)
}

func TestCommandThatIgnoresSIGTERMIsKilled(t *testing.T) {
	g, hall := startGuard(t), newHall(t)
	ctx, cancel := context.WithCancel(t.Context())
	c := hall.command(t, append([]string{"ignore-term"}, aTree...)...)
	c.Shutdown = 50 * time.Millisecond
	ended := g.inBackground(ctx, c)
	members := hall.wait(t, 4)
	cancel()
	want(t, await(t, ended), 128+9, nil)
	mustBeGone(t, members)
}

func TestStoppedCommandHearsSIGTERM(t *testing.T) {
	g, hall := startGuard(t), newHall(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := g.inBackground(ctx, hall.command(t, "join", "hold"))
	freeze(t, hall.wait(t, 1)[0].pid)
	cancel()
	want(t, await(t, ended), 128+15, nil)
}

// What a command leaves in the background is ended before Run returns: the
// lease goes with it.
func TestWhatTheCommandLeavesBehindIsEnded(t *testing.T) {
	for _, fork := range []string{"fork", "fork-setsid"} {
		t.Run(fork, func(t *testing.T) {
			g, hall := startGuard(t), newHall(t)

			// By SIGTERM ...
			ended := g.inBackground(t.Context(), hall.command(t, fork, "parent-exit:3", fork, "join", "hold"))
			want(t, await(t, ended), 3, nil)
			for range len(hall.joined) {
				mustBeGone(t, hall.wait(t, 1))
			}

			// ... and by SIGKILL.
			c := hall.command(t, fork, fork, "ignore-term", "join", "report-signals", "hold")
			c.Shutdown = 50 * time.Millisecond
			ended = g.inBackground(t.Context(), c)
			members := hall.wait(t, 4)
			_, keeper := g.pids()
			for _, p := range childrenOf(keeper) {
				_ = syscall.Kill(p.pid, syscall.SIGKILL) // the main process
			}
			want(t, await(t, ended), 128+9, nil)
			mustBeGone(t, members)
		})
	}
}

// A daemon that ignores nothing ends by SIGTERM, though it left the group and
// lost its parent only after that was sent.
func TestSessionsOfTheirOwnAreReached(t *testing.T) {
	for _, end := range []string{"stop", "highlander", "guard", "keeper"} {
		t.Run(end, func(t *testing.T) {
			hall := newHall(t)
			g := startGuard(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := g.inBackground(ctx, hall.command(t, "fork-setsid", "fork-setsid", "join", "hold"))
			members := hall.wait(t, 4)
			guard, keeper := g.pids()
			switch end {
			case "stop":
				cancel()
				want(t, await(t, ended), 128+15, nil)
			case "highlander":
				g.Close() // ends the pipe, as its death would
				want(t, await(t, ended), 0, ErrClosed)
			case "guard":
				strike(t, guard)
				want(t, await(t, ended), 0, ErrGuardDied)
			case "keeper":
				strike(t, keeper)
				want(t, await(t, ended), 0, ErrGuardDied)
			}
			mustBeGone(t, members)
		})
	}
}

func TestGuardIsStartedAnewAfterItDied(t *testing.T) {
	g, hall := startGuard(t), newHall(t)
	g.SetDeadline(time.Now().Add(safetyNet))
	for i := range 5 {
		ended := g.inBackground(t.Context(), hall.command(t, "join", "hold"))
		members := hall.wait(t, 1)
		guard, keeper := g.pids()
		strike(t, []int{guard, keeper}[i%2])
		want(t, await(t, ended), 0, ErrGuardDied)
		mustBeGone(t, members)
	}
	want(t, await(t, g.inBackground(t.Context(), hall.command(t, "exit:3"))), 3, nil)

	// It knows the deadline of the one before.
	ended := g.inBackground(t.Context(), hall.command(t, "join", "hold"))
	hall.wait(t, 1)
	guard, _ := g.pids()
	strike(t, guard)
	want(t, await(t, ended), 0, ErrGuardDied)
	g.mu.Lock()
	g.deadline = now() // as if nothing had been sent since
	g.mu.Unlock()
	if m := g.orderStart(t, hall.command(t, "exit:0")); !m.Expired {
		t.Errorf("the new keeper reported %+v", m)
	}
}

// orderStart has a command started without a look at the clock, and returns what
// the keeper reports.
func (g *Guard) orderStart(t *testing.T, c Command) message {
	t.Helper()
	for range 10 {
		l, err := g.connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		l.send(message{Kind: msgStart, Run: 1, Path: c.Path, Args: c.Args, Env: c.Env})
		if m, ok := <-l.events; ok {
			return m
		}
		// The deadline being over, the guard has taken a slow keeper for frozen.
	}
	t.Fatal("the keeper does not report")
	panic("unreachable")
}

func TestGuardThatDiesWhileItStartsIsReplaced(t *testing.T) {
	ours := func() map[int]bool { // guards have a session of their own
		found := map[int]bool{}
		for _, p := range childrenOf(os.Getpid()) {
			found[p.pid] = p.session == p.pid
		}
		return found
	}
	for range 10 {
		before, over := ours(), make(chan struct{})
		var killing sync.WaitGroup
		killing.Go(func() {
			for {
				for pid, isGuard := range ours() {
					if isGuard && !before[pid] {
						_ = syscall.Kill(pid, syscall.SIGKILL)
						return
					}
				}
				select {
				case <-over:
					return
				default:
				}
			}
		})
		g, err := Start(t.Context(), testOptions())
		close(over)
		killing.Wait()
		if err != nil {
			t.Fatal(err)
		}
		g.Close()
	}
}

func TestStartIsGivenUp(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for range 10 {
		ended := make(chan error, 1)
		go func() {
			g, err := Start(over, Options{Logger: discard})
			if err == nil {
				g.Close()
			}
			ended <- err
		}()
		select {
		case err := <-ended:
			if err == nil {
				continue // it was there before anybody looked
			}
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Start returned %v, want %v", err, context.Canceled)
			}
			return
		case <-time.After(safetyNet):
			t.Fatal("Start waits for a guard that nobody wants any more")
		}
	}
	t.Error("Start does not give up")
}

func TestHundredRunsLeakNothing(t *testing.T) {
	g := startGuard(t)
	guard, keeper := g.pids()
	path, err := LookPath("true")
	if err != nil {
		t.Fatal(err)
	}
	count := func() string {
		return fmt.Sprintf("descriptors: highlander %d, guard %d, keeper %d; children: guard %d, keeper %d", fdCount(t, os.Getpid()),
			fdCount(t, guard), fdCount(t, keeper), len(childrenOf(guard)), len(childrenOf(keeper)))
	}
	run := func() {
		want(t, await(t, g.inBackground(t.Context(), Command{Path: path, Args: []string{"true"}})), 0, nil)
	}
	run()
	for round := range 3 {
		before := count()
		for range 100 {
			run()
		}
		after := count()
		if before == after {
			break
		}
		if round == 2 { // each time: it is not what the collector has found of other tests
			t.Errorf("before: %s\nafter:  %s", before, after)
		}
	}
	g.Close()
	for p := range processes() {
		if p.session == guard {
			t.Errorf("after Close there is %+v", p)
		}
	}
}

func TestCommandInheritsStandardStreamsOnly(t *testing.T) {
	hall := newHall(t)
	stray, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer stray.Close()
	h := launch(t, hall.command(t, "join", "report-fds", "report-stdin"), func(cmd *exec.Cmd) {
		cmd.ExtraFiles = append(cmd.ExtraFiles, nil, nil, nil, stray) // highlander itself inherits it
		cmd.Stdin = stray
	})
	h.ready(t)
	h.tell(t, "run")
	m := hall.wait(t, 1)[0]
	if got := m.next(t); got != "" {
		t.Errorf("the command inherited %q", got)
	}
	if got := m.next(t); got != "/dev/zero" {
		t.Errorf("its standard input is %q", got)
	}
	h.report(t)
	h.waitAllGone(t)
}

func TestCommandDoesNotReadFromATerminal(t *testing.T) {
	hall := newHall(t)
	h := launch(t, hall.command(t, "join", "report-stdin"), func(cmd *exec.Cmd) { cmd.Stdin = openTerminal(t) })
	h.ready(t)
	h.tell(t, "run")
	if got := hall.wait(t, 1)[0].next(t); got != os.DevNull {
		t.Errorf("standard input is %q", got)
	}
	h.report(t)
	h.waitAllGone(t)
}

// nohup works through highlander, and the deafness of the helpers is not
// inherited.
func TestCommandIgnoresTheSignalsThatHighlanderWasToldToIgnore(t *testing.T) {
	hall := newHall(t)
	h := launch(t, hall.command(t, "join", "report-ignored"), func(cmd *exec.Cmd) {
		cmd.Args = append([]string{"sh", "-c", `trap "" HUP; exec "$@"`, "sh", cmd.Path}, cmd.Args[1:]...)
		cmd.Path = "/bin/sh"
	})
	h.ready(t)
	h.tell(t, "run")
	// A shell starts what runs in the background with SIGINT ignored.
	want := fmt.Sprint(true, signal.Ignored(syscall.SIGINT), signal.Ignored(syscall.SIGTERM))
	if got := hall.wait(t, 1)[0].next(t); got != want {
		t.Errorf("SIGHUP, SIGINT, SIGTERM ignored: %s, want %s", got, want)
	}
	h.report(t)
	h.waitAllGone(t)
}

func TestCloseEndsTheCommand(t *testing.T) {
	g, hall := startGuard(t), newHall(t)
	ended := g.inBackground(t.Context(), hall.command(t, aTree...))
	members := hall.wait(t, 4)
	g.Close()
	mustBeGone(t, members)
	want(t, await(t, ended), 0, ErrClosed)
	g.Close()
	g.Signal(syscall.SIGTERM)
	g.SetDeadline(time.Now())
	want(t, await(t, g.inBackground(t.Context(), hall.command(t, "exit:0"))), 0, ErrClosed)
}

func TestSecondRunAtTheSameTimeIsRefused(t *testing.T) {
	g, hall := startGuard(t), newHall(t)
	ended := g.inBackground(t.Context(), hall.command(t, "join", "hold"))
	hall.wait(t, 1)
	want(t, await(t, g.inBackground(t.Context(), hall.command(t, "exit:0"))), 0, errBusy)
	g.Signal(syscall.SIGKILL)
	want(t, await(t, ended), 128+9, nil)
}

func TestCommandThatCannotBeStarted(t *testing.T) {
	g := startGuard(t)
	dir := t.TempDir()
	garbage := dir + "/garbage"
	if err := os.WriteFile(garbage, []byte{0, 1, 2, 3}, 0o755); err != nil {
		t.Fatal(err)
	}
	path, _ := LookPath("true")
	for _, tc := range []struct {
		cmd  Command
		code int
		err  error
	}{
		{Command{Path: dir + "/nothing"}, codeNotFound, syscall.ENOENT},
		{Command{Path: path, Dir: dir + "/nothing"}, codeNotFound, syscall.ENOENT},
		{Command{Path: dir}, codeNotExecutable, syscall.EACCES},
		{Command{Path: garbage}, codeNotExecutable, syscall.ENOEXEC},
		{Command{Path: path, Args: []string{"a\x00b"}}, codeNotExecutable, syscall.EINVAL},
	} {
		_, err := g.Run(t.Context(), tc.cmd)
		var bad *CommandError
		if !errors.As(err, &bad) || bad.Code != tc.code || !errors.Is(err, tc.err) {
			t.Errorf("%+v: %v", tc.cmd, err)
		}
	}
	// The guard is as good as new.
	want(t, await(t, g.inBackground(t.Context(), Command{Path: path, Args: []string{"true"}})), 0, nil)
}

// That it errs to the early side when the two clocks in a time disagree is not
// shown here: package time has no way to make such a time.
func TestInstantIsOnTheBootClock(t *testing.T) {
	if instantOf(time.Time{}) != 0 {
		t.Error("the zero time is not never")
	}
	in := func(d time.Duration) time.Time { return time.Now().Add(d) }
	if got := instantOf(in(-time.Hour)); !got.passed() {
		t.Error("an hour ago has not passed")
	}
	if got := instantOf(time.Unix(0, 0)); !got.passed() {
		t.Error("1970 has not passed")
	}
	before := now()
	got := instantOf(in(time.Hour))
	if got.passed() || got > before+instant(time.Hour+time.Minute) || got < before+instant(time.Hour-time.Minute) {
		t.Errorf("in an hour is %v from now", time.Duration(got-before))
	}
}

func TestHelperStartedByHandSaysSo(t *testing.T) {
	for _, mode := range []string{guardMode, keeperMode} {
		out, err := exec.Command(executable(t), mode).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "started by highlander itself") {
			t.Errorf("%s: %v, %q", mode, err, out)
		}
	}
}

func BenchmarkRunToStarted(b *testing.B) {
	g := startGuard(b)
	path, err := LookPath("true")
	if err != nil {
		b.Fatal(err)
	}
	var started time.Duration
	for b.Loop() {
		r := &run{log: discard, link: g.link, cmd: Command{Path: path, Args: []string{"true"}}, hang: time.NewTimer(safetyNet), again: newRepeat()}
		begin := time.Now()
		if err := g.start(r); err != nil {
			b.Fatal(err)
		}
		m := <-r.link.events
		started += time.Since(begin)
		if m.Kind != msgStarted {
			b.Fatalf("the keeper reported %+v", m)
		}
		if _, err := g.follow(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(started.Microseconds())/float64(b.N), "µs-to-started/op")
}

// How late the last process of a command is gone after its deadline: what the
// margin has to be compared with that users of deadlines leave.
func BenchmarkDeadlineToGone(b *testing.B) {
	for _, forks := range []int{2, 5} {
		b.Run(fmt.Sprintf("%d processes", 1<<forks), func(b *testing.B) {
			g := startGuard(b)
			var total, worst time.Duration
			for b.Loop() {
				hall := newHall(b)
				g.SetDeadline(time.Time{})
				ended := g.inBackground(b.Context(), hall.command(b, append(slices.Repeat([]string{"fork-setsid"}, forks), "ignore-term", "join", "hold")...))
				members := hall.wait(b, 1<<forks)
				deadline := time.Now().Add(20 * time.Millisecond)
				g.SetDeadline(deadline)
				waitEnd(b, members)
				late := time.Since(deadline)
				total, worst = total+late, max(worst, late)
				want(b, await(b, ended), 128+9, ErrDeadline)
			}
			b.ReportMetric(float64(total.Microseconds())/float64(b.N)/1000, "ms-late/op")
			b.ReportMetric(float64(worst.Microseconds())/1000, "ms-late-at-most")
		})
	}
}

// openTerminal returns a terminal that is nobody's controlling one.
func openTerminal(t *testing.T) *os.File {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return terminal
}
