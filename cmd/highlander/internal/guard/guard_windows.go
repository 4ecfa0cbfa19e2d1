package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// pollInterval is how often to look whether a job is empty.
const pollInterval = 10 * time.Millisecond

// Main does nothing: on Windows highlander itself holds the job object that
// the command runs in, and the kernel ends everything in it when highlander
// dies.
func Main() {}

// Guard runs commands, one at a time. All methods may be called concurrently.
type Guard struct {
	log *slog.Logger

	running sync.Mutex // held by Run

	mu       sync.Mutex
	job      *job // nil while nothing runs
	deadline time.Time
	moved    chan struct{} // has an element when the deadline was moved
	closed   chan struct{}
}

// Start prepares a guard.
func Start(_ context.Context, opts Options) (*Guard, error) {
	g := &Guard{log: opts.Logger, moved: make(chan struct{}, 1), closed: make(chan struct{})}
	if g.log == nil {
		g.log = slog.Default()
	}
	return g, nil
}

// SetDeadline says until when the command may live, the one that runs now as
// well as later ones: it is killed at t unless highlander is frozen then, and
// none is started later than t. The zero time stands for no deadline. Set it
// before Run; move it at any time.
func (g *Guard) SetDeadline(t time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.deadline = t
	select {
	case g.moved <- struct{}{}:
	default:
	}
}

// Testifies says whether a guard gives out what it was given by SetCertificate.
const Testifies = false

// SetCertificate does nothing: when highlander dies, the kernel ends the command
// with it, and nobody is left to say so. The other nodes wait for the lease to
// run out.
func (g *Guard) SetCertificate(Certificate) {}

// Holds says whether a guard keeps open what it was given by Hold.
const Holds = false

// Hold does nothing: the kernel ends the command together with highlander.
func (g *Guard) Hold(net.Conn) (let func(), err error) { return func() {}, nil }

// Signal sends sig to the command, if one runs: SIGKILL kills all of it, and
// every other signal is CTRL_BREAK.
func (g *Guard) Signal(sig syscall.Signal) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.job == nil:
	case sig == syscall.SIGKILL:
		g.job.kill()
	default:
		g.job.terminate()
	}
}

// Close kills what still runs, and returns when it is gone. It is idempotent.
func (g *Guard) Close() {
	g.mu.Lock()
	if !g.isClosed() {
		close(g.closed)
	}
	g.mu.Unlock()
	g.running.Lock() // wait for Run
	defer g.running.Unlock()
}

func (g *Guard) isClosed() bool {
	select {
	case <-g.closed:
		return true
	default:
		return false
	}
}

// Run runs cmd and returns when nothing of it is left: no process it started,
// directly or not. When ctx ends, or when the main process has ended and left
// others behind, the command gets CTRL_BREAK, and is killed after
// cmd.Shutdown.
//
// The error is nil if the command was started and ended, in whatever way: Exit
// says how, and ctx whether it was told to. Otherwise it is ErrDeadline,
// ErrClosed, the cause of ctx if that ended first, or a *CommandError if the
// command cannot be started. A second Run at the same time is an error.
func (g *Guard) Run(ctx context.Context, cmd Command) (Exit, error) {
	if !g.running.TryLock() {
		return Exit{}, errBusy
	}
	defer g.running.Unlock()
	switch {
	case g.isClosed():
		return Exit{}, ErrClosed
	case ctx.Err() != nil:
		return Exit{}, context.Cause(ctx)
	case g.expired():
		return Exit{}, ErrDeadline
	}
	j, err := startJob(cmd)
	if err != nil {
		return Exit{}, err
	}
	g.setJob(j)
	defer j.close()
	defer g.setJob(nil)
	g.log.Info("command started", "pid", j.cmd.Process.Pid, "command", cmd.Args)
	return g.follow(ctx, j, cmd.Shutdown)
}

func (g *Guard) setJob(j *job) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.job = j
}

// follow returns when the job is empty.
func (g *Guard) follow(ctx context.Context, j *job, shutdown time.Duration) (Exit, error) {
	var exit Exit
	var why error
	var poll <-chan time.Time
	exited, done, closed := j.exited, ctx.Done(), g.closed
	grace := time.NewTimer(0)
	grace.Stop()
	deadline := time.NewTimer(g.untilDeadline())
	defer deadline.Stop()
	stop := func() {
		j.terminate()
		grace.Reset(max(shutdown, 0))
	}
	for {
		select {
		case code := <-exited:
			exited = nil
			exit = Exit{Code: code}
			g.log.Info("command ended", "code", code)
			ticker := time.NewTicker(pollInterval)
			defer ticker.Stop()
			poll = ticker.C
			if done != nil && !j.empty() {
				g.log.Info("ending what the command left behind", "grace", shutdown)
				stop()
			}
		case <-poll:
			if j.empty() {
				grace.Stop()
				return exit, why
			}
		case <-done:
			done = nil
			stop()
		case <-grace.C:
			j.kill()
		case <-closed:
			closed, why = nil, ErrClosed
			j.kill()
		case <-g.moved:
			deadline.Reset(g.untilDeadline())
		case <-deadline.C:
			if g.expired() {
				why = ErrDeadline
				j.kill()
				continue
			}
			deadline.Reset(g.untilDeadline())
		}
	}
}

func (g *Guard) expired() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.deadline.IsZero() && untilEarlier(g.deadline) <= 0
}

// untilDeadline is how long to sleep before looking at the clock again: at
// most a second, since timers stand still while the machine sleeps.
func (g *Guard) untilDeadline() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.deadline.IsZero() {
		return time.Second
	}
	return min(untilEarlier(g.deadline), time.Second)
}

// untilEarlier is the time until t, the shorter one if the wall clock and the
// monotonic clock disagree.
func untilEarlier(t time.Time) time.Duration {
	here := time.Now()
	return min(t.Sub(here), t.Round(0).Sub(here.Round(0)))
}

// job is a command in a job object of its own, with whatever it starts.
type job struct {
	handle windows.Handle
	cmd    *exec.Cmd
	exited chan int
}

// startJob starts the command suspended, so that nothing of it runs before it
// is in the job.
func startJob(c Command) (*job, error) {
	handle, err := newJobObject()
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{
		Path: c.Path, Args: c.Args, Env: c.Env, Dir: c.Dir,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP | windows.CREATE_SUSPENDED},
	}
	if err := cmd.Start(); err != nil {
		_ = windows.CloseHandle(handle)
		return nil, startError(c.Path, err)
	}
	j := &job{handle: handle, cmd: cmd, exited: make(chan int, 1)}
	err = j.adopt()
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		j.close()
		return nil, err
	}
	go func() {
		_ = cmd.Wait() // the exit code says it
		j.exited <- cmd.ProcessState.ExitCode()
	}()
	return j, nil
}

// newJobObject returns a job whose processes end when its last handle, which
// is ours alone, is closed.
func newJobObject() (windows.Handle, error) {
	handle, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return 0, fmt.Errorf("create a job object: %w", err)
	}
	var info windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION
	info.BasicLimitInformation.LimitFlags = windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
	_, err = windows.SetInformationJobObject(handle, windows.JobObjectExtendedLimitInformation,
		uintptr(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)))
	if err != nil {
		_ = windows.CloseHandle(handle)
		return 0, fmt.Errorf("limit the job object: %w", err)
	}
	return handle, nil
}

// adopt puts the suspended process into the job and lets it run.
func (j *job) adopt() error {
	pid := uint32(j.cmd.Process.Pid)
	process, err := windows.OpenProcess(windows.PROCESS_SET_QUOTA|windows.PROCESS_TERMINATE, false, pid)
	if err != nil {
		return fmt.Errorf("open the command's process: %w", err)
	}
	defer windows.CloseHandle(process)
	if err := windows.AssignProcessToJobObject(j.handle, process); err != nil {
		return fmt.Errorf("put the command into its job object: %w", err)
	}
	return resume(pid)
}

// resume lets the only thread of a process run that was created suspended.
func resume(pid uint32) error {
	snapshot, err := windows.CreateToolhelp32Snapshot(windows.TH32CS_SNAPTHREAD, 0)
	if err != nil {
		return fmt.Errorf("list threads: %w", err)
	}
	defer windows.CloseHandle(snapshot)
	entry := windows.ThreadEntry32{Size: uint32(unsafe.Sizeof(windows.ThreadEntry32{}))}
	for err = windows.Thread32First(snapshot, &entry); err == nil; err = windows.Thread32Next(snapshot, &entry) {
		if entry.OwnerProcessID != pid {
			continue
		}
		thread, err := windows.OpenThread(windows.THREAD_SUSPEND_RESUME, false, entry.ThreadID)
		if err != nil {
			return fmt.Errorf("open the command's thread: %w", err)
		}
		defer windows.CloseHandle(thread)
		if _, err := windows.ResumeThread(thread); err != nil {
			return fmt.Errorf("resume the command: %w", err)
		}
		return nil
	}
	return errors.New("resume the command: it has no thread")
}

// terminate asks the command to end.
func (j *job) terminate() {
	_ = windows.GenerateConsoleCtrlEvent(windows.CTRL_BREAK_EVENT, uint32(j.cmd.Process.Pid))
}

// kill ends every process in the job, with the exit code of SIGKILL.
func (j *job) kill() { _ = windows.TerminateJobObject(j.handle, 128+9) }

// empty reports whether every process in the job has ended.
func (j *job) empty() bool {
	var info struct { // JOBOBJECT_BASIC_ACCOUNTING_INFORMATION
		TotalUserTime, TotalKernelTime, ThisPeriodUserTime, ThisPeriodKernelTime int64
		TotalPageFaults, TotalProcesses, ActiveProcesses, TerminatedProcesses    uint32
	}
	err := windows.QueryInformationJobObject(j.handle, windows.JobObjectBasicAccountingInformation,
		uintptr(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)), nil)
	return err == nil && info.ActiveProcesses == 0
}

func (j *job) close() { _ = windows.CloseHandle(j.handle) }
