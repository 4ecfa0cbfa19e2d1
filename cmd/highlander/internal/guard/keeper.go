//go:build unix

package guard

import (
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// keeper forks the command and stays to see the end of everything it forks in
// turn. It runs on the main goroutine, which is wired to the main thread.
type keeper struct {
	up, status *sender
	cgroup     *cgroup

	state    keeperState
	tree     *tree
	run      uint64
	shutdown time.Duration
	exit     Exit // of the main process, once it ended
	expired  bool
	deadline instant
	alarm    *alarm
	grace    *time.Timer // from SIGTERM to SIGKILL
}

type keeperState int

const (
	idle     keeperState = iota // no command
	running                     // its main process lives
	stopping                    // SIGTERM was sent, the grace period runs
	killing                     // SIGKILL was sent
)

// keeperMain is the whole life of a keeper.
func keeperMain() error {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	if err := settle(fdStatus); err != nil {
		return err
	}
	alarm, err := newAlarm()
	if err != nil {
		return err
	}
	k := &keeper{
		up:     newSender(os.NewFile(fdUp, "up")),
		status: newSender(os.NewFile(fdStatus, "status")),
		cgroup: inheritCgroup(fdCgroup),
		alarm:  alarm,
		grace:  time.NewTimer(0),
	}
	k.grace.Stop()
	k.tell(message{Kind: msgReady, PID: os.Getpid()})
	k.serve(receive(os.NewFile(fdDown, "down")), children)
	k.exterminate()
	return nil
}

// serve returns when the guard is gone, or highlander is: a frozen guard would
// not tell.
func (k *keeper) serve(fromGuard <-chan message, children <-chan os.Signal) {
	highlander := readerGone(fdUp)
	for {
		select {
		case <-highlander:
			return
		case m, ok := <-fromGuard:
			if !ok {
				return
			}
			k.handle(m)
		case <-children:
			k.reap()
		case <-k.tree.poll():
			k.reap()
		case <-k.alarm.C:
			k.lookAtDeadline()
		case <-k.grace.C:
			k.kill()
		}
	}
}

// exterminate kills all there is, and returns when it is gone.
func (k *keeper) exterminate() {
	group := 0
	if k.state != idle {
		group = k.tree.leader
	}
	exterminate(group, session(), k.cgroup)
}

func (k *keeper) handle(m message) {
	switch m.Kind {
	case msgDeadline:
		k.lookAtDeadline() // a highlander that wakes brings the next one
		k.deadline = m.Deadline
		k.alarm.Set(m.Deadline)
	case msgStart:
		k.start(m)
	case msgStop:
		if k.state == running {
			k.stop()
		}
	case msgSignal:
		switch {
		case k.state == idle: // too late: there is nothing to signal
		case m.Signal == syscall.SIGKILL:
			k.kill()
		default:
			k.tree.signal(m.Signal)
		}
	}
}

// lookAtDeadline kills a command whose deadline has passed.
func (k *keeper) lookAtDeadline() {
	if k.deadline.passed() && k.state != idle {
		k.expired = true
		k.kill()
	}
}

func (k *keeper) start(m message) {
	k.run, k.shutdown, k.exit, k.expired = m.Run, m.Shutdown, Exit{}, false
	// Highlander may have been frozen since it was given the lease.
	if k.deadline.passed() {
		k.tell(message{Kind: msgFailed, Expired: true})
		return
	}
	t, err := startTree(m, k.cgroup)
	if err != nil {
		errno := syscall.EINVAL
		errors.As(err, &errno)
		k.tell(message{Kind: msgFailed, Errno: errno})
		return
	}
	k.tree, k.state = t, running
	k.tell(message{Kind: msgStarted, PID: t.leader, InCgroup: t.cgroup != nil})
}

// stop asks everything to end, and gives it the grace period to do so.
func (k *keeper) stop() {
	k.state = stopping
	k.tree.terminate()
	k.grace.Reset(max(k.shutdown, 0))
}

func (k *keeper) kill() {
	k.state = killing
	k.tree.kill()
}

// reap looks at who has ended. It is gone when nobody is left; what a main
// process leaves behind is asked to end, and then made to.
func (k *keeper) reap() {
	if k.state == idle {
		return
	}
	exit, ended, left := k.tree.reap()
	if ended {
		k.exit = exit
		k.tell(message{Kind: msgExited, Code: exit.Code, Signal: exit.Signal, Others: left})
	}
	switch {
	case !left:
		k.gone()
	case k.state == running && k.tree.ended:
		k.stop()
	case k.state == stopping:
		k.tree.terminate() // those that have become orphans since
	case k.state == killing:
		k.tree.kill()
	}
}

func (k *keeper) gone() {
	k.grace.Stop()
	k.cgroup.clear()
	k.state, k.tree = idle, nil
	// The guard may have killed the group before this alarm was heard.
	expired := k.expired || k.deadline.passed() && k.exit.Signal == syscall.SIGKILL
	k.tell(message{Kind: msgGone, Expired: expired})
}

// tell reports to the guard and to highlander. If one of them is gone, the
// end of the pipe from the guard says so.
func (k *keeper) tell(m message) {
	m.Run = k.run
	_ = k.status.send(m)
	_ = k.up.send(m)
}
