package guard

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// These tests are guard, keeper or highlander themselves, one after the other: a
// helper kills what descends from its process.

// isRunning stops a timer and says whether it was running.
func isRunning(timer *time.Timer) bool { return timer.Stop() }

// A keeper reports to highlander and to the guard. So highlander's order to start
// the next command may reach the guard before the report of the last one's end:
// then the patience with that end must not be the next command's.
func TestStartThatOvertakesTheLastReportEndsThePatience(t *testing.T) {
	g := &guardian{toKeeper: make(chan message, 8), patience: time.NewTimer(time.Hour), again: newRepeat()}
	g.handDown(message{Kind: msgStart, Run: 1})
	g.learn(message{Kind: msgStarted, Run: 1, PID: 4711})
	g.handDown(message{Kind: msgStop, Run: 1})
	g.again.start() // as with an order to kill
	g.handDown(message{Kind: msgStart, Run: 2})
	if isRunning(g.patience) {
		t.Error("the patience with the end of the first command goes on")
	}
	if isRunning(g.again.Timer) {
		t.Error("the first command is killed once more")
	}
	if g.group != 0 {
		t.Errorf("the second command has the group of the first")
	}
	g.handDown(message{Kind: msgStop, Run: 2})
	g.learn(message{Kind: msgExited, Run: 1})
	g.learn(message{Kind: msgGone, Run: 1})
	if !g.live || !isRunning(g.patience) {
		t.Error("the end of the first command counts for the second")
	}
}

// The report that the command has started may come when it was told to stop
// already: it does not end the patience with a guard that is frozen since.
func TestLateReportOfTheStartDoesNotEndThePatienceWithTheGuard(t *testing.T) {
	down, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer down.Close()
	l := &link{log: discard, down: newSender(down)}
	g := &Guard{log: discard, link: l}
	r := &run{log: discard, link: l, number: 1, hang: time.NewTimer(time.Hour), again: newRepeat()}
	g.stop(r)
	if over, err := r.note(message{Kind: msgStarted, Run: 1, PID: 4711}); over || err != nil {
		t.Errorf("the start ends the run: %v", err)
	}
	if !isRunning(r.hang) {
		t.Error("highlander waits for the end without end")
	}
	r = &run{log: discard, link: l, number: 1, hang: time.NewTimer(time.Hour), again: newRepeat()}
	r.note(message{Kind: msgStarted, Run: 1, PID: 4711})
	if isRunning(r.hang) {
		t.Error("the start is waited for when it has been reported")
	}
}

func TestLooksComeEverLater(t *testing.T) {
	r := newRepeat()
	if isRunning(r.Timer) {
		t.Error("there is a look before the first order to kill")
	}
	r.start()
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 100, 100} {
		if want *= pollInterval; r.after != want || !isRunning(r.Timer) {
			t.Errorf("the next look is due after %v, want %v", r.after, want)
		}
		r.next()
	}
	if r.start(); r.after != pollInterval {
		t.Errorf("after another order to kill it is due after %v", r.after)
	}
}

// forker is a process that forks when it is told to: what it forks after a look
// has escaped that.
type forker struct {
	cmd *exec.Cmd
	*member
}

func startForker(t *testing.T) *forker {
	t.Helper()
	hall := newHall(t)
	c := hall.command(t, "join", "fork-when-told", "join", "hold")
	f := &forker{cmd: &exec.Cmd{Path: c.Path, Args: c.Args, Env: c.Env}}
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = f.cmd.Process.Kill()
		_ = f.cmd.Wait()
	})
	f.member = hall.wait(t, 1)[0]
	f.next(t) // listening
	return f
}

// fork returns the number of a child, which does not end by itself.
func (f *forker) fork(t *testing.T) (pid int) {
	t.Helper()
	if err := f.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	said := f.next(t)
	pid, err := strconv.Atoi(said)
	if err != nil {
		t.Fatalf("the process reports %q", said)
	}
	return pid
}

// The keeper is frozen, and something of the command comes to light after each
// look of the guard.
func TestGuardLooksAgain(t *testing.T) {
	f := startForker(t)
	g := &guardian{
		toKeeper: make(chan message, 8), patience: time.NewTimer(time.Hour), again: newRepeat(),
		keeper: f.cmd, run: 1, live: true, deadline: now(),
		group: f.cmd.Process.Pid, // of another session, and so not killed
	}
	first := f.fork(t)
	g.kill()
	gone(t, first)
	for range 4 {
		escaped := f.fork(t)
		select {
		case <-g.again.C:
			g.killAgain()
		case <-time.After(safetyNet):
			t.Fatal("it does not look again")
		}
		gone(t, escaped)
	}
	g.learn(message{Kind: msgGone, Run: 1})
	if isRunning(g.again.Timer) || isRunning(g.patience) {
		t.Error("it goes on when there is nothing left to kill")
	}
}

// Guard and keeper are frozen, and highlander does what they should.
func TestHighlanderLooksAgain(t *testing.T) {
	f := startForker(t)
	down, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer down.Close()
	l := &link{log: discard, guard: f.cmd, down: newSender(down), events: make(chan message)}
	expiry, err := newAlarm()
	if err != nil {
		t.Fatal(err)
	}
	defer expiry.Close()
	g := &Guard{log: discard, link: l, expiry: expiry}
	r := &run{log: discard, link: l, number: 1, hang: time.NewTimer(safetyNet), again: newRepeat()}
	defer r.hang.Stop()
	ended := make(chan error, 1)
	go func() {
		_, err := g.follow(t.Context(), r)
		ended <- err
	}()
	first := f.fork(t)
	g.SetDeadline(time.Now())
	gone(t, first)
	for range 4 {
		gone(t, f.fork(t))
	}
	l.events <- message{Kind: msgGone, Run: 1, Expired: true}
	if err := <-ended; !errors.Is(err, ErrDeadline) {
		t.Errorf("it ends with %v", err)
	}
}

// The keeper may have reported just before it was killed, so that Run returned
// while both helpers were there.
func TestGuardWhoseKeeperWasKilledIsReplaced(t *testing.T) {
	g, hall := startGuard(t), newHall(t)
	l := g.link
	guard, keeper := g.pids()
	l.condemnStart() // of nothing
	if l.isCondemned() {
		t.Fatal("a keeper that was not asked to start anything is killed")
	}
	freeze(t, guard) // it does not see the end of its keeper
	l.starts()
	l.condemnStart()
	ended := g.inBackground(t.Context(), hall.command(t, "exit:3"))
	for begin := time.Now(); !l.isClosing(); runtime.Gosched() {
		if time.Since(begin) > safetyNet {
			t.Fatal("it is used again")
		}
	}
	thaw(guard)
	want(t, await(t, ended), 3, nil)
	if next, keeperOfNext := g.pids(); next == guard || keeperOfNext == keeper {
		t.Error("there is no other guard")
	}
}

func (l *link) isClosing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closing
}

// A highlander that was frozen brings the next deadline when it wakes, in the
// moment in which the last one passes: the command ends as one whose deadline has
// passed.
func TestNextDeadlineDoesNotSaveACommandWhoseDeadlineHasPassed(t *testing.T) {
	runtime.LockOSThread() // the command dies with the thread that forked it
	defer runtime.UnlockOSThread()
	alarm, err := newAlarm()
	if err != nil {
		t.Fatal(err)
	}
	defer alarm.Close()
	reports, up, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reports.Close()
	defer up.Close()
	status, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer status.Close()
	k := &keeper{up: newSender(up), status: newSender(status), alarm: alarm, grace: time.NewTimer(time.Hour)}
	heard := receive(reports)

	hall := newHall(t)
	c := hall.command(t, "join", "hold")
	k.handle(message{Kind: msgDeadline, Deadline: now() + instant(time.Hour)})
	k.handle(message{Kind: msgStart, Run: 1, Path: c.Path, Args: c.Args, Env: c.Env})
	if m := <-heard; m.Kind != msgStarted {
		t.Fatalf("the keeper reports %+v", m)
	}
	m := hall.wait(t, 1)[0]
	defer func() { _ = syscall.Kill(m.pid, syscall.SIGKILL) }()

	k.deadline = now() // an hour later
	k.handle(message{Kind: msgDeadline, Deadline: now() + instant(time.Hour)})
	m.waitEnd(t)
	for k.state != idle {
		k.reap()
	}
	if m := <-heard; m.Kind != msgExited || m.Signal != syscall.SIGKILL {
		t.Errorf("the keeper reports %+v, not that it has killed the command", m)
	}
	if m := <-heard; m.Kind != msgGone || !m.Expired {
		t.Errorf("the keeper reports %+v, not the end at the deadline", m)
	}
}
