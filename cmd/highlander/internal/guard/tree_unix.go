//go:build unix && !linux

package guard

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tree is a command and all it forks: its process group.
type tree struct {
	leader     int  // main process and process group
	ended      bool // the main process was reaped
	terminated bool
	cgroup     *cgroup // nil
}

func startTree(m message, _ *cgroup) (*tree, error) {
	pid, _, err := syscall.StartProcess(m.Path, m.Args, &syscall.ProcAttr{
		Dir:   m.Dir,
		Env:   m.Env,
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return nil, err
	}
	return &tree{leader: pid}, nil
}

// poll says when to look again; only a group without its main process needs it.
func (t *tree) poll() <-chan time.Time {
	if t == nil || !t.ended {
		return nil
	}
	return time.After(pollInterval)
}

// reap says, once, how the main process ended, and whether anybody is left.
func (t *tree) reap() (exit Exit, ended, left bool) {
	var status unix.WaitStatus
	if !t.ended {
		if pid, err := unix.Wait4(t.leader, &status, unix.WNOHANG, nil); err != nil || pid != t.leader {
			return Exit{}, false, true
		}
		t.ended, ended = true, true
		exit = exitOf(max(status.ExitStatus(), 0), 0)
		if status.Signaled() {
			exit = exitOf(0, status.Signal())
		}
	}
	return exit, ended, groupLives(t.leader)
}

func (t *tree) signal(sig syscall.Signal) { _ = unix.Kill(-t.leader, sig) }

// terminate asks everybody to end, once; a stopped process has to be continued
// to hear it.
func (t *tree) terminate() {
	if !t.terminated {
		t.terminated = true
		t.signal(unix.SIGTERM)
		t.signal(unix.SIGCONT)
	}
}

func (t *tree) kill() { t.signal(unix.SIGKILL) }

// exterminate kills group, waits for the children of this process and returns
// when the group is empty.
func exterminate(group, session int, _ *cgroup) {
	killGroup(group, session)
	for {
		if _, err := unix.Wait4(-1, nil, 0, nil); err == unix.ECHILD {
			break
		}
	}
	awaitGroup(group)
}

// sweep does so for highlander when guard and keeper are both dead.
func sweep(group, _ int, _ *cgroup) {
	killGroup(group, 0)
	awaitGroup(group)
}

func killGroup(group, _ int) {
	if group != 0 {
		_ = unix.Kill(-group, unix.SIGKILL)
	}
}

// killDescendants does nothing: there is no telling who they are.
func killDescendants(...int) {}

func awaitGroup(group int) {
	for group != 0 && groupLives(group) {
		time.Sleep(pollInterval)
	}
}

func groupLives(group int) bool { return unix.Kill(-group, 0) != unix.ESRCH }
