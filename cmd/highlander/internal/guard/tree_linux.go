package guard

import (
	"bytes"
	"context"
	"iter"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tree is a command and all it forks, as their ancestor sees them: its
// children are the main process and every process that lost its parent. One
// that has ended is known to have left nothing behind when there are none.
type tree struct {
	cgroup     *cgroup // that the main process was started in; may be nil
	leader     int     // main process and process group
	ended      bool    // the main process was reaped: its number may be reused
	childless  bool    // so far as reap has seen
	terminated bool
	told       map[int]bool // processes outside the group that got a SIGTERM
}

// startTree forks the command, into c if that can be done. The keeper's main
// thread calls it.
func startTree(m message, c *cgroup) (*tree, error) {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if c != nil {
		if leave, err := c.enter(attr, m.Run); err != nil {
			c = nil
		} else {
			defer leave()
		}
	}
	pid, _, err := syscall.StartProcess(m.Path, m.Args, &syscall.ProcAttr{Dir: m.Dir, Env: m.Env, Files: []uintptr{0, 1, 2}, Sys: attr})
	if err != nil {
		c.clear()
		return nil, err
	}
	return &tree{cgroup: c, leader: pid, told: make(map[int]bool)}, nil
}

// poll says when to look again: nobody tells when a process ends that was put
// into the cgroup from elsewhere.
func (t *tree) poll() <-chan time.Time {
	if t == nil || !t.childless {
		return nil
	}
	return time.After(pollInterval)
}

// reap buries the dead. It says, once, how the main process ended, and whether
// anybody is left.
func (t *tree) reap() (exit Exit, ended, left bool) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR:
		case err != nil: // no children
			t.childless = true
			return exit, ended, t.cgroup.populated()
		case pid == 0:
			t.childless = false
			return exit, ended, true
		case pid == t.leader && !t.ended:
			t.ended, ended = true, true
			exit = exitOf(max(status.ExitStatus(), 0), 0)
			if status.Signaled() {
				exit = exitOf(0, status.Signal())
			}
		}
	}
}

// signal sends sig to the group.
func (t *tree) signal(sig syscall.Signal) {
	if t.ended {
		signalGroup(t.leader, session(), sig)
		return
	}
	_ = unix.Kill(-t.leader, sig)
}

// terminate asks everybody to end, once each; a stopped process has to be
// continued to hear it.
func (t *tree) terminate() {
	if !t.terminated {
		t.terminated = true
		t.signal(unix.SIGTERM)
		t.signal(unix.SIGCONT)
	}
	for _, p := range children() {
		if p.group != t.leader && !t.told[p.pid] {
			t.told[p.pid] = true
			_ = unix.Kill(p.pid, unix.SIGTERM)
			_ = unix.Kill(p.pid, unix.SIGCONT)
		}
	}
}

// kill kills the cgroup, and where there is none the group and all that descends
// from this process. It is called again when an orphan has ended, for what was
// forked meanwhile.
func (t *tree) kill() {
	_ = t.cgroup.kill()
	t.signal(unix.SIGKILL)
	var all family
	for p := range processes() {
		all.add(p)
		if p.parent == os.Getpid() {
			_ = unix.Kill(p.pid, unix.SIGKILL)
		}
	}
	all.killUnder(all[os.Getpid()])
}

// family is processes by parent. Killing all generations at once spares a busy
// machine from dying one by one.
type family map[int][]process

func (f *family) add(p process) {
	if *f == nil {
		*f = family{}
	}
	(*f)[p.parent] = append((*f)[p.parent], p)
}

// killUnder kills what descends from the parents, but for themselves and for
// those that are spared.
func (f family) killUnder(parents []process, spared ...int) {
	for len(parents) > 0 {
		p := parents[0]
		parents = append(parents[1:], f[p.pid]...)
		for _, child := range f[p.pid] {
			if !slices.Contains(spared, child.pid) {
				child.kill()
			}
		}
		delete(f, p.pid) // so that this ends, whatever numbers were reused while /proc was read
	}
}

// killDescendants kills all that descends from the helpers, but for themselves:
// what the keeper forked, and what of that has fallen to the guard. The helpers
// must not have been waited for. What is just being forked or orphaned may escape:
// call it again.
func killDescendants(helpers ...int) {
	var all family
	for p := range processes() {
		all.add(p)
	}
	var parents []process
	for _, pid := range helpers {
		parents = append(parents, process{pid: pid})
	}
	all.killUnder(parents, helpers...)
}

// kill kills p, whatever has become its parent. Its number may be another's by
// now; a descriptor stays with the process that it was made for.
func (p process) kill() {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if again, ok := readProcess(p.pid); ok && again.started == p.started {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}

// exterminate kills group, what is in c, and every child of this process until
// none is left, those that become its children meanwhile included. Looking for
// them takes longer than most of them take to die, so it is done beside the
// waiting. It removes c.
func exterminate(group, session int, c *cgroup) {
	_ = c.kill()
	x := &execution{group: group, session: session, more: make(chan struct{}, 1)}
	over, cancel := context.WithCancel(context.Background())
	var killing sync.WaitGroup
	killing.Go(func() { x.killAll(over) })
	for unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOWAIT, nil) != unix.ECHILD {
		x.bury()
		select {
		case x.more <- struct{}{}:
		default:
		}
	}
	cancel()
	killing.Wait()
	c.exterminate()
	c.remove()
}

// execution is the end of a process group of session, and of all children of
// this process.
type execution struct {
	group, session int
	more           chan struct{} // has an element when children have ended: theirs may have become this process's
	mu             sync.Mutex    // held to bury, and to kill a child: the number of one that was buried may be another's
}

// bury waits for those that have ended.
func (x *execution) bury() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for {
		if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 && err != unix.EINTR {
			return
		}
	}
}

// killAll kills all there are and all there will be, until the context ends.
func (x *execution) killAll(over context.Context) {
	if leader, ok := readProcess(x.group); ok && leader.in(x.group, x.session) {
		_ = unix.Kill(-x.group, unix.SIGKILL)
	}
	for {
		var all family
		for p := range processes() {
			if over.Err() != nil {
				return
			}
			all.add(p)
			x.kill(p)
		}
		all.killUnder(all[os.Getpid()])
		select {
		case <-x.more:
		case <-over.Done():
			return
		}
	}
}

func (x *execution) kill(p process) {
	self := os.Getpid()
	switch {
	case p.parent == self:
		x.mu.Lock()
		defer x.mu.Unlock()
		if again, ok := readProcess(p.pid); ok && again.parent == self {
			_ = unix.Kill(p.pid, unix.SIGKILL)
		}
	case p.in(x.group, x.session):
		_ = unix.Kill(-x.group, unix.SIGKILL)
	}
}

// sweep does so for highlander, to which what is left falls when guard and
// keeper are both dead. It touches no other children of this process than those
// in c or in the dead guard's session.
func sweep(group, guard int, c *cgroup) {
	_ = c.kill()
	killGroup(group, guard)
	// The guard's pipe ends a moment before its children fall to this process.
	// It stays a zombie, so that its number, the session's, is not reused.
	for unix.Waitid(unix.P_PID, guard, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	for {
		swept := false
		for _, p := range children() {
			if p.pid == guard || p.session != guard && !c.contains(p.pid) {
				continue
			}
			swept = true
			_ = unix.Kill(p.pid, unix.SIGKILL)
			bury(p.pid)
		}
		if !swept {
			break
		}
	}
	c.exterminate()
	c.remove()
}

// bury waits for a child of this process.
func bury(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}

// killGroup kills a process group of session.
func killGroup(group, session int) { signalGroup(group, session, unix.SIGKILL) }

// signalGroup signals a process group that the caller is not the parent of: it
// looks first whether the number still belongs to a group of session, since
// it may have been reused while the caller was frozen.
func signalGroup(group, session int, sig syscall.Signal) {
	if group == 0 {
		return
	}
	if leader, ok := readProcess(group); ok && leader.in(group, session) {
		_ = unix.Kill(-group, sig)
		return
	}
	for p := range processes() {
		if p.in(group, session) {
			_ = unix.Kill(-group, sig)
			return
		}
	}
}

// process is a line of /proc.
type process struct {
	pid, parent, group, session int
	started                     int // in clock ticks: tells it from a later one with its number
}

// in says whether p belongs to a group, of that session: the number may be
// another's by now.
func (p process) in(group, session int) bool {
	return group != 0 && p.group == group && p.session == session
}

// children returns the children of this process. A process that has one from
// beginning to end of the call is never told that it has none.
func children() []process {
	self := os.Getpid()
	var found []process
	for p := range processes() {
		if p.parent == self {
			found = append(found, p)
		}
	}
	return found
}

// processes reads /proc. There is a file with the children of a process alone,
// but only on kernels built with it, and it may leave some out.
func processes() iter.Seq[process] {
	return func(yield func(process) bool) {
		dir, err := os.Open("/proc")
		if err != nil {
			return
		}
		defer dir.Close()
		names, _ := dir.Readdirnames(-1)
		for _, name := range names {
			if pid, err := strconv.Atoi(name); err == nil {
				if p, ok := readProcess(pid); ok && !yield(p) {
					return
				}
			}
		}
	}
}

// readProcess reads the stat file of a process: pid (name) state parent group
// session and more, the 20th being the time of its start, where the name may hold anything. It makes do without
// package os, whose files cost several times as much.
func readProcess(pid int) (process, bool) {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return process{}, false
	}
	defer unix.Close(fd)
	var stat [1024]byte // the name has 64 bytes at the most
	n, err := unix.Read(fd, stat[:])
	if err != nil {
		return process{}, false
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat[:n], ')')+1 : n])
	if len(fields) < 20 {
		return process{}, false
	}
	p := process{pid: pid}
	for _, f := range [...]struct {
		at int
		to *int
	}{{1, &p.parent}, {2, &p.group}, {3, &p.session}, {19, &p.started}} {
		if *f.to, err = strconv.Atoi(string(fields[f.at])); err != nil {
			return process{}, false
		}
	}
	return p, true
}
