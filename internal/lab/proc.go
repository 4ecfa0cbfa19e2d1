//go:build linux

package lab

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// markEnv is a variable that everything started in a lab has: PID-START-N, the
// lab's process, when that began, and a number.
const markEnv = "HIGHLANDER_LAB"

// procStat is a line of /proc.
type procStat struct {
	pid, parent int
	name        string
	state       string
	started     string // in ticks since boot
}

func readStat(pid int) (procStat, bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if err != nil || open < 0 || end < open {
		return procStat{}, false
	}
	fields := strings.Fields(string(text[end+1:]))
	if len(fields) < 20 {
		return procStat{}, false
	}
	parent, err := strconv.Atoi(fields[1])
	return procStat{pid: pid, parent: parent, name: string(text[open+1 : end]), state: fields[0], started: fields[19]}, err == nil
}

// processes returns all processes of the machine.
func processes() []procStat {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var all []procStat
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			if p, ok := readStat(pid); ok {
				all = append(all, p)
			}
		}
	}
	return all
}

// childNamed finds the child of a process that has a name.
func childNamed(parent int, name string) (int, bool) {
	for _, p := range processes() {
		if p.parent == parent && p.name == name {
			return p.pid, true
		}
	}
	return 0, false
}

// marked returns the living processes whose mark is wanted.
func marked(wanted func(mark string) bool) []procStat {
	var found []procStat
	for _, p := range processes() {
		if p.state == "Z" || p.pid == os.Getpid() {
			continue
		}
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.pid))
		if err != nil {
			continue
		}
		for entry := range bytes.SplitSeq(env, []byte{0}) {
			if mark, ok := strings.CutPrefix(string(entry), markEnv+"="); ok && wanted(mark) {
				found = append(found, p)
			}
		}
	}
	return found
}

// newMark is the mark of this process's n-th lab.
func newMark(n int64) string {
	self, _ := readStat(os.Getpid()) // of oneself it cannot fail
	return fmt.Sprintf("%d-%s-%d", self.pid, self.started, n)
}

// sweepStale kills what labs have left behind whose process is gone.
func sweepStale() {
	for _, p := range marked(func(mark string) bool {
		fields := strings.Split(mark, "-")
		pid, err := strconv.Atoi(fields[0])
		if err != nil || len(fields) != 3 {
			return false
		}
		owner, alive := readStat(pid)
		return !alive || owner.started != fields[1]
	}) {
		_ = unix.Kill(p.pid, unix.SIGKILL)
	}
}

// handle is a process that need not be a child of this one. Unlike a number it
// is never another one's.
type handle struct{ f *os.File }

func openHandle(pid int) (handle, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return handle{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return handle{os.NewFile(uintptr(fd), "pidfd")}, nil
}

// signal sends a signal; a process that is gone does not mind.
func (h handle) signal(sig unix.Signal) error {
	raw, err := h.f.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	if err := raw.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return err
	}
	if sent == unix.ESRCH {
		return nil
	}
	return sent
}

// wait returns when the process has ended.
func (h handle) wait() {
	raw, err := h.f.SyscallConn()
	if err != nil {
		return
	}
	// Ready for reading means ended.
	_ = raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || err != nil && err != unix.EINTR
	})
}

func (h handle) close() { h.f.Close() }

// watchEnd calls ended when a process has ended, or at once.
func watchEnd(pid int, ended func(at time.Duration)) {
	h, err := openHandle(pid)
	if err != nil {
		ended(now())
		return
	}
	go func() {
		h.wait()
		at := now()
		h.close()
		ended(at)
	}()
}
