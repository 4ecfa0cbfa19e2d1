//go:build unix

package guard

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The hidden modes: the first argument of a helper.
const (
	guardMode  = "__guard"
	keeperMode = "__keeper"
)

// The descriptors that helpers are given, beyond standard ones.
const (
	fdDown   = 3 // guard, keeper: messages downwards
	fdUp     = 4 // guard, keeper: messages to highlander; ends when both are gone
	fdCgroup = 5 // guard, keeper: the cgroup of the command, if it has one
	fdVault  = 6 // guard, keeper: what lies in it is open as long as they are there
	fdStatus = 7 // keeper: the same messages to the guard
)

// keeperGrace is how long the guard gives the keeper, after the command had to
// be gone, before it takes the keeper for frozen and kills it.
const keeperGrace = 2 * time.Second

// repeat says when to kill a command once more of which something may have got
// away.
type repeat struct {
	*time.Timer
	after time.Duration
}

func newRepeat() repeat {
	timer := time.NewTimer(0)
	timer.Stop()
	return repeat{Timer: timer}
}

// start makes the first repetition due after pollInterval.
func (r *repeat) start() {
	r.after = pollInterval
	r.Reset(r.after)
}

// next makes another due, ever later up to each second: to look at all processes
// has its price, and some cannot be killed.
func (r *repeat) next() {
	r.after = min(2*r.after, time.Second)
	r.Reset(r.after)
}

// pollInterval is how often to look whether a group is empty where nobody tells.
const pollInterval = 10 * time.Millisecond

func init() {
	if len(os.Args) < 2 {
		return
	}
	switch os.Args[1] {
	case guardMode:
		setProcessName("hl-guard")
	case keeperMode:
		setProcessName("hl-keeper")
		// The parent-death signal is sent when the thread that forked ends,
		// not the process: keep main on the main thread, which stays to the
		// end. See golang/go#27505.
		runtime.LockOSThread()
	}
}

// Main becomes a guard or a keeper, and does not return, in a process that was
// started as one. Call it first thing in main, and in TestMain of test
// binaries that start guards.
func Main() {
	if len(os.Args) != 2 {
		return
	}
	switch os.Args[1] {
	case guardMode:
		requirePipes(fdDown, fdUp)
		exit(guardMain())
	case keeperMode:
		requirePipes(fdDown, fdUp, fdStatus)
		exit(keeperMain())
	}
}

func exit(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s %s: %v\n", os.Args[0], os.Args[1], err)
		os.Exit(1)
	}
	os.Exit(0)
}

// requirePipes ends a helper that was started by hand.
func requirePipes(fds ...int) {
	for _, fd := range fds {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
			fmt.Fprintf(os.Stderr, "%s %s is started by highlander itself\n", os.Args[0], os.Args[1])
			os.Exit(2)
		}
	}
}

// helper prepares this binary in a hidden mode, with files as descriptors 3
// and up; nil stands for none. Its standard streams are this process's.
func helper(mode string, attr *syscall.SysProcAttr, files ...*os.File) *exec.Cmd {
	cmd := exec.Command(selfPath())
	cmd.Args = []string{os.Args[0], mode}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = files
	cmd.SysProcAttr = attr
	return cmd
}

// settle makes a fresh helper deaf to what is meant for highlander or for the
// command, and keeps its descriptors, of which last is the highest, from the
// processes it starts.
func settle(last int) error {
	for _, sig := range []os.Signal{
		syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM,
		syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGPIPE, syscall.SIGXCPU, syscall.SIGVTALRM,
	} {
		// Caught and dropped, not ignored: ignoring is inherited by the
		// command. What nohup ignored stays so, for the command's sake.
		if !signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	closeOnExec(last)
	return becomeSubreaper()
}

// closeOnExec keeps every descriptor but the standard ones from the processes
// that this one starts. Those beyond last that highlander itself inherited it
// closes: somebody may wait for their end.
func closeOnExec(last int) {
	entries, err := os.ReadDir("/dev/fd")
	if err != nil {
		for fd := fdDown; fd <= last; fd++ {
			unix.CloseOnExec(fd)
		}
		return
	}
	for _, entry := range entries {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil || fd <= 2 {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		switch {
		case err != nil || flags&unix.FD_CLOEXEC != 0: // closed again, or this process's own
		case fd > last:
			_ = unix.Close(fd)
		default:
			unix.CloseOnExec(fd)
		}
	}
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), ioctlReadTermios)
	return err == nil
}

// readerGone returns a channel that is closed when nobody can read any more
// what is written to the pipe fd.
func readerGone(fd int32) <-chan struct{} {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			// Asked for no event, it reports the end all the same.
			_, err := unix.Poll([]unix.PollFd{{Fd: fd}}, -1)
			if err != unix.EINTR {
				return
			}
		}
	}()
	return gone
}

// session returns the session of this process: the guard's and the keeper's is
// the guard's own, and the command starts out in it.
func session() int {
	id, _ := unix.Getsid(0) // of oneself it cannot fail
	return id
}
