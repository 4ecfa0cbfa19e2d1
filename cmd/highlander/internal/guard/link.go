//go:build unix

package guard

import (
	"context"
	"encoding/gob"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// link is one guard with its keeper, as highlander sees them.
type link struct {
	log    *slog.Logger
	guard  *exec.Cmd
	cgroup *cgroup // of the commands; may be nil
	up     *os.File

	sending sync.Mutex
	down    *sender

	// events is closed, and so is done, when guard and keeper are gone and
	// whatever they ran with them.
	events chan message
	done   chan struct{}

	mu        sync.Mutex
	keeper    *os.Process // from when it is ready to when it is gone
	keeperPID int
	group     int  // process group of the command, as far as reported; zero while there is none
	starting  bool // a command was asked for, and the keeper has not said what became of it
	condemned bool // the keeper was killed: no command may be started any more
	over      bool // the numbers of guard and keeper may be others'
	closing   bool // its end is no surprise
	killed    bool // the guard was killed
}

var errNotReady = errors.New("it ended before it was ready")

// dial starts a guard and a keeper, and waits until they are ready.
func dial(ctx context.Context, log *slog.Logger, vault *vault, noCgroup bool) (*link, error) {
	downR, downW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	upR, upW, err := os.Pipe()
	if err != nil {
		downR.Close()
		downW.Close()
		return nil, err
	}
	l := &link{
		log:  log,
		down: newSender(downW),
		up:   upR,
		// Never full: Run reads them while it runs, and there are none else.
		events: make(chan message, 16),
		done:   make(chan struct{}),
	}
	if !noCgroup {
		l.cgroup = newCgroup(log)
	}
	l.guard = helper(guardMode, &syscall.SysProcAttr{Setsid: true}, downR, upW, l.cgroup.file(), vault.out)
	if isTerminal(os.Stdin) {
		l.guard.Stdin = nil // the null device
	}
	err = l.guard.Start()
	downR.Close()
	upW.Close() // now: the end of the pipe is waited for below
	if err != nil {
		downW.Close()
		upR.Close()
		l.cgroup.remove()
		return nil, err
	}
	ready := make(chan error, 1)
	go l.read(ready)
	select {
	case err := <-ready:
		if err != nil {
			<-l.done
			return nil, err
		}
	case <-ctx.Done():
		l.close()
		return nil, context.Cause(ctx)
	}
	log.Debug("guard started", "guard", l.guard.Process.Pid, "keeper", l.keeperPID)
	return l, nil
}

// read passes on what the keeper reports. The pipe ends when both helpers are
// gone; what they could not finish is then finished here.
func (l *link) read(ready chan<- error) {
	defer close(l.events)
	defer close(l.done) // first, so that whoever misses it in events finds it here
	err := l.relay(ready)
	l.hangUp() // a guard without a keeper waits for that
	sweep(l.finish(), l.guard.Process.Pid, l.cgroup)
	_ = l.guard.Wait() // however it ended
	_ = l.up.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closing && !l.condemned {
		l.log.Warn("the guard died", "guard", l.guard.Process.Pid, "pipe", err)
	}
	if l.keeper != nil {
		_ = l.keeper.Release()
		l.keeper = nil
	}
}

// relay returns when the pipe ends.
func (l *link) relay(ready chan<- error) error {
	dec := gob.NewDecoder(l.up)
	for {
		var m message
		if err := dec.Decode(&m); err != nil {
			select {
			case ready <- errNotReady:
			default:
			}
			return err
		}
		switch m.Kind {
		case msgReady:
			ready <- l.meet(m.PID)
			continue
		case msgStarted:
			l.started(m.PID)
		case msgFailed, msgGone:
			l.started(0)
		}
		l.events <- m
	}
}

// starts notes that a command is being asked for.
func (l *link) starts() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.starting = true
}

// started notes what the keeper says of its command, if one runs.
func (l *link) started(group int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.group, l.starting = group, false
}

// finish ends killCommand, for guard and keeper are about to be waited for, and
// returns the process group of which something may be left.
func (l *link) finish() (group int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	return l.group
}

// killCommand kills the command at a moment when guard and keeper do the same of
// their own, in case that both are frozen.
func (l *link) killCommand() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	_ = l.cgroup.kill()
	killGroup(l.group, l.guard.Process.Pid)
	helpers := []int{l.guard.Process.Pid}
	if l.keeper != nil && l.keeper.Signal(syscall.Signal(0)) == nil {
		helpers = append(helpers, l.keeperPID) // the guard has not buried it
	}
	killDescendants(helpers...)
}

// condemnStart kills the keeper if it has not said yet whether it has started the
// command: it may be frozen just before it does so, and must not go on.
func (l *link) condemnStart() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !orphansFallToUs || !l.starting || l.keeper == nil {
		return
	}
	l.condemned = true
	l.log.Warn("the keeper did not start the command before its deadline: killing it", "keeper", l.keeperPID)
	_ = l.keeper.Kill()
}

func (l *link) isCondemned() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.condemned
}

// meet takes hold of the keeper: on Linux of the process, not just its number.
func (l *link) meet(keeper int) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keeperPID = keeper
	l.keeper, err = os.FindProcess(keeper)
	return err
}

// send writes to the guard. One that does not read is as good as dead, and
// killed; that it died shows in events.
func (l *link) send(m message) {
	l.sending.Lock()
	defer l.sending.Unlock()
	if err := l.down.send(m); errors.Is(err, os.ErrDeadlineExceeded) {
		l.log.Warn("the guard does not read its pipe: killing it", "guard", l.guard.Process.Pid)
		_ = l.guard.Process.Kill()
	}
}

// hangUp ends the pipe to the guard, and says that this is no death.
func (l *link) hangUp() {
	l.send(message{Kind: msgCertificate})
	_ = l.down.pipe.Close()
}

func (l *link) alive() bool {
	select {
	case <-l.done:
		return false
	default:
		return true
	}
}

// kill kills the guard, and the second time the keeper.
func (l *link) kill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.killed && l.keeper != nil {
		_ = l.keeper.Kill()
		return
	}
	l.killed = true
	_ = l.guard.Process.Kill()
}

// close ends guard and keeper by ending the pipe, and returns when they and
// the command are gone.
func (l *link) close() {
	l.mu.Lock()
	l.closing = true
	l.mu.Unlock()
	l.hangUp()
	for {
		select {
		case <-l.done:
			return
		case <-time.After(hangGrace):
			l.kill()
		}
	}
}
