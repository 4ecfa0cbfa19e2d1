//go:build linux

package guard

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tests run real processes: this binary is highlander, guard, keeper and
// command in turn.
const (
	commandMode    = "__command"
	highlanderMode = "__highlander"

	noCgroupEnv = "HIGHLANDER_TEST_NO_CGROUP" // set: guards make no cgroup
)

func TestMain(m *testing.M) {
	Main()
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case commandMode:
			actor{}.play(os.Args[2:])
			os.Exit(0)
		case highlanderMode:
			highlanderMain()
			os.Exit(0)
		}
	}
	// With -race every process would sleep for a second before it exits.
	os.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0")
	os.Exit(m.Run())
}

// safetyNet is when a test gives up. Nothing is expected to take as long.
const safetyNet = 60 * time.Second

// hall is where the processes of a command report. Each holds a connection to
// it to its end, so the end of the connection proves the end of the process.
type hall struct {
	path   string
	joined chan *member
}

type member struct {
	pid   int
	conn  net.Conn
	lines *bufio.Scanner
}

func newHall(t testing.TB) *hall {
	t.Helper()
	dir, err := os.MkdirTemp("", "hall") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &hall{path: filepath.Join(dir, "s"), joined: make(chan *member, 1024)}
	ln, err := net.Listen("unix", h.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			// A process that this test fails to end ends with its connection.
			t.Cleanup(func() { conn.Close() })
			m := &member{conn: conn, lines: bufio.NewScanner(conn)}
			if m.lines.Scan() {
				m.pid, _ = strconv.Atoi(m.lines.Text())
				h.joined <- m
			}
		}
	}()
	return h
}

// wait returns the next n processes to join.
func (h *hall) wait(t testing.TB, n int) []*member {
	t.Helper()
	timeout := time.After(safetyNet)
	var all []*member
	for range n {
		select {
		case m := <-h.joined:
			all = append(all, m)
		case <-timeout:
			t.Fatalf("%d of %d processes joined", len(all), n)
		}
	}
	return all
}

// next returns the next line that the process reports.
func (m *member) next(t testing.TB) string {
	t.Helper()
	_ = m.conn.SetReadDeadline(time.Now().Add(safetyNet))
	if !m.lines.Scan() {
		t.Fatalf("process %d reported nothing: %v", m.pid, m.lines.Err())
	}
	return m.lines.Text()
}

// waitEnd returns when the process has ended.
func (m *member) waitEnd(t testing.TB) {
	t.Helper()
	_ = m.conn.SetReadDeadline(time.Now().Add(safetyNet))
	for m.lines.Scan() {
	}
	if err := m.lines.Err(); err != nil && !strings.Contains(err.Error(), "reset by peer") {
		t.Fatalf("process %d did not end: %v", m.pid, err)
	}
}

// mustBeGone fails the test unless the process has ended by now.
func (m *member) mustBeGone(t testing.TB) {
	t.Helper()
	if states := threadStates(m.pid); strings.Trim(states, "ZX") != "" {
		t.Errorf("process %d is still there", m.pid)
	}
}

func waitEnd(t testing.TB, members []*member) {
	t.Helper()
	for _, m := range members {
		m.waitEnd(t)
	}
}

func mustBeGone(t testing.TB, members []*member) {
	t.Helper()
	for _, m := range members {
		m.mustBeGone(t)
	}
}

// command returns a Command that does what words say: see actor. Stopping it
// with anything but SIGTERM takes longer than a test may.
func (h *hall) command(t testing.TB, words ...string) Command {
	t.Helper()
	return Command{
		Path:     executable(t),
		Args:     append([]string{"command", commandMode}, words...),
		Env:      append(os.Environ(), "HALL="+h.path),
		Shutdown: 10 * safetyNet,
	}
}

func executable(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// aTree is four processes: a main one, two children and a grandchild.
var aTree = []string{"fork", "fork", "join", "hold"}

// actor is a process of a command.
type actor struct {
	conn     net.Conn
	isParent bool // of the last fork
}

// play does one word after the other.
func (a actor) play(words []string) {
	for i, word := range words {
		verb, number, _ := strings.Cut(word, ":")
		n, _ := strconv.Atoi(number)
		switch verb {
		case "fork": // the child plays the rest of the words too
			a.fork(words[i+1:], nil)
			a.isParent = true
		case "fork-setsid":
			a.fork(words[i+1:], &syscall.SysProcAttr{Setsid: true})
			a.isParent = true
		case "fork-daemon": // its parent exits
			a.fork(append([]string{"fork-setsid", "parent-exit:0"}, words[i+1:]...), &syscall.SysProcAttr{Setsid: true})
		case "parent-exit":
			if a.isParent {
				os.Exit(n)
			}
		case "fork-when-told": // the children play the rest of the words
			told := make(chan os.Signal, 16)
			signal.Notify(told, syscall.SIGUSR1)
			a.report("listening")
			for range told {
				a.report(strconv.Itoa(a.fork(words[i+1:], nil)))
			}
		case "fork-hop":
			a.fork([]string{"hop"}, &syscall.SysProcAttr{Setsid: true})
		case "hop":
			a.hop()
		case "join":
			a.join()
		case "become-root":
			if err := syscall.Setuid(0); err != nil {
				panic(err)
			}
		case "ignore-term":
			signal.Ignore(syscall.SIGTERM)
		case "report-signals":
			a.reportSignals()
		case "report-ignored":
			a.report(fmt.Sprint(signal.Ignored(syscall.SIGHUP), signal.Ignored(syscall.SIGINT), signal.Ignored(syscall.SIGTERM)))
		case "report-fds":
			a.report(strings.Join(openFiles(), " "))
		case "report-stdin":
			stdin, _ := os.Readlink("/proc/self/fd/0")
			a.report(stdin)
		case "exit":
			os.Exit(n)
		case "die":
			_ = syscall.Kill(os.Getpid(), syscall.Signal(n))
			time.Sleep(safetyNet) // until another thread has heard it
		case "hold": // until the test is over
			_, _ = a.conn.Read(make([]byte, 1))
			os.Exit(0)
		default:
			panic("unknown word " + word)
		}
	}
}

func (a *actor) fork(words []string, attr *syscall.SysProcAttr) (pid int) {
	child := exec.Command("/proc/self/exe", append([]string{commandMode}, words...)...)
	child.Stdin, child.Stdout, child.Stderr, child.SysProcAttr = os.Stdin, os.Stdout, os.Stderr, attr
	if err := child.Start(); err != nil {
		panic(err)
	}
	return child.Process.Pid
}

// hop joins, forks into a new session and exits, and so does the child, for as
// long as the test goes on.
func (a *actor) hop() {
	a.join()
	a.fork([]string{"hop"}, &syscall.SysProcAttr{Setsid: true})
	os.Exit(0)
}

func (a *actor) join() {
	conn, err := net.Dial("unix", os.Getenv("HALL"))
	if err != nil {
		os.Exit(99) // the test is over
	}
	a.conn = conn
	a.report(strconv.Itoa(os.Getpid()))
}

func (a *actor) report(line string) { fmt.Fprintln(a.conn, line) }

func (a *actor) reportSignals() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded...)
	go func() {
		for sig := range signals {
			a.report(sig.String())
		}
	}()
	a.report("listening")
}

var forwarded = []os.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGQUIT, syscall.SIGTERM}

// openFiles names what a process inherited beside its standard streams; what
// the Go runtime opened since is marked close-on-exec.
func openFiles() []string {
	found := []string{}
	for fd := 3; fd < 1024; fd++ {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			name, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
			found = append(found, name)
		}
	}
	return found
}

// highlander is a process that runs a command under a guard and ends when that
// has ended.
type highlander struct {
	cmd           *exec.Cmd
	guard, keeper int
	control       *os.File
	pipe          *os.File // that reports come through
	reports       *bufio.Scanner
	output        *os.File // ends when highlander, guard, keeper and all of the command are gone
}

// launch starts a highlander; wrap may change how.
func launch(t testing.TB, c Command, wrap func(*exec.Cmd)) *highlander {
	t.Helper()
	script, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	pipe := func() (r, w *os.File) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close(); w.Close() })
		return r, w
	}
	controlR, controlW := pipe()
	reportR, reportW := pipe()
	outputR, outputW := pipe()
	h := &highlander{control: controlW, pipe: reportR, reports: bufio.NewScanner(reportR), output: outputR}
	h.cmd = exec.Command(executable(t), highlanderMode)
	h.cmd.Env = append(os.Environ(), "COMMAND="+string(script))
	h.cmd.Stdout, h.cmd.Stderr = outputW, os.Stderr
	h.cmd.ExtraFiles = []*os.File{controlR, reportW}
	if wrap != nil {
		wrap(h.cmd)
	}
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	controlR.Close()
	reportW.Close()
	outputW.Close()
	t.Cleanup(func() {
		_ = h.cmd.Process.Kill()
		_ = h.cmd.Wait()
		if t.Failed() && h.guard != 0 {
			for _, p := range h.left() { // frozen, perhaps
				_ = syscall.Kill(p.pid, syscall.SIGKILL)
			}
		}
	})
	return h
}

// ready waits for guard and keeper.
func (h *highlander) ready(t testing.TB) {
	t.Helper()
	if _, err := fmt.Sscanf(h.report(t), "ready %d %d", &h.guard, &h.keeper); err != nil {
		t.Fatal(err)
	}
}

func (h *highlander) report(t testing.TB) string {
	t.Helper()
	_ = h.pipe.SetReadDeadline(time.Now().Add(safetyNet))
	if !h.reports.Scan() {
		t.Fatalf("highlander reported nothing: %v", h.reports.Err())
	}
	return h.reports.Text()
}

func (h *highlander) tell(t testing.TB, format string, args ...any) {
	t.Helper()
	if _, err := fmt.Fprintf(h.control, format+"\n", args...); err != nil {
		t.Fatal(err)
	}
}

// waitAllGone returns when highlander, guard, keeper and the command are gone.
func (h *highlander) waitAllGone(t testing.TB) {
	t.Helper()
	_ = h.output.SetReadDeadline(time.Now().Add(safetyNet))
	if _, err := h.output.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "EOF") {
		t.Fatalf("something survived: %v; %v", err, h.left())
	}
}

func (h *highlander) left() (left []process) {
	for p := range processes() {
		lives := strings.Trim(threadStates(p.pid), "ZX") != ""
		if lives && (p.pid == h.cmd.Process.Pid || p.session == h.guard) {
			left = append(left, p)
		}
	}
	return left
}

// highlanderMain does what the test says on descriptor 3, and reports on 4.
func highlanderMain() {
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)
	control, report := bufio.NewScanner(os.NewFile(3, "control")), os.NewFile(4, "report")
	var c Command
	if err := json.Unmarshal([]byte(os.Getenv("COMMAND")), &c); err != nil {
		panic(err)
	}
	g, err := Start(contextOfTests, testOptions())
	if err != nil {
		panic(err)
	}
	l := g.link
	fmt.Fprintln(report, "ready", l.guard.Process.Pid, l.keeperPID)
	ended := make(chan string, 1)
	held := map[string]func(){}
	go func() {
		for control.Scan() {
			verb, arg, _ := strings.Cut(control.Text(), " ")
			switch verb {
			case "run":
				go func() {
					exit, err := g.Run(contextOfTests, c)
					ended <- fmt.Sprintf("ended %d %v", exit.Code, err)
				}()
			case "keep":
				go func() {
					for {
						_, _ = g.Run(contextOfTests, c)
					}
				}()
			case "signal":
				g.Signal(syscall.SIGUSR1)
			case "deadline":
				d, _ := time.ParseDuration(arg)
				g.SetDeadline(time.Now().Add(d))
			case "certificate":
				frame, peers, _ := strings.Cut(arg, " ")
				g.SetCertificate(Certificate{Frame: []byte(frame), Peers: strings.Fields(peers)})
				fmt.Fprintln(report, "certified")
			case "hold":
				conn, err := net.Dial("unix", arg)
				if err == nil {
					held[arg], err = g.Hold(conn)
				}
				if err == nil {
					conn.Close() // what is left is in the vault
				}
				fmt.Fprintln(report, "held", err)
			case "let":
				held[arg]()
				fmt.Fprintln(report, "let go")
			}
		}
		os.Exit(1) // the test is over
	}()
	fmt.Fprintln(report, <-ended)
}

// strike sends SIGKILL to all victims at once: stopped first, none of them
// can answer the death of another.
func strike(t testing.TB, victims ...int) {
	t.Helper()
	if len(victims) > 1 {
		freeze(t, victims...)
	}
	for i, pid := range victims {
		err := syscall.Kill(pid, syscall.SIGKILL)
		if i > 0 && err == syscall.ESRCH {
			continue // the kernel was quicker: its parent's death ends it, and it may be buried
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// freeze stops processes and returns when every thread of them stands still.
func freeze(t testing.TB, victims ...int) {
	t.Helper()
	if !standStill(t, victims...) {
		t.Fatalf("of the processes %v, one is gone", victims)
	}
}

// standStill is freeze for processes that may end of their own: then it returns
// false, and others of them are stopped.
func standStill(t testing.TB, victims ...int) bool {
	t.Helper()
	for _, pid := range victims {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err == syscall.ESRCH {
			return false
		} else if err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	for _, pid := range victims {
		for {
			states := threadStates(pid)
			if strings.Trim(states, "ZX") == "" {
				return false
			}
			if strings.Trim(states, "T") == "" {
				break
			}
			if time.Since(begin) > safetyNet {
				t.Fatalf("process %d does not stop", pid)
			}
			runtime.Gosched()
		}
	}
	return true
}

// thaw lets go on what freeze has stopped, as far as it is still there.
func thaw(victims ...int) {
	for _, pid := range victims {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
}

// withMoreTime tries something that has a deadline until that was far enough away
// for all that has to happen before it: a busy machine may let a process stand
// still for longer than a test wants to wait. A try returns what was too late, or
// nothing.
func withMoreTime(t *testing.T, try func(limit time.Duration) (late string)) {
	t.Helper()
	for limit := 300 * time.Millisecond; ; limit *= 2 {
		late := try(limit)
		if late == "" || t.Failed() {
			return
		}
		t.Logf("with %v: %s", limit, late)
		if limit > safetyNet/4 {
			t.Fatalf("with however much time: %s", late)
		}
	}
}

// holdAfterFork makes a keeper stand still between the start of its next command
// and its report. What it returns is closed when the keeper has ended.
func holdAfterFork(t testing.TB, keeper int) (ended <-chan struct{}) {
	t.Helper()
	ready, over := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(over)
		runtime.LockOSThread() // the tracer is a thread, and ends with this goroutine
		// The main thread forks.
		_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(keeper), 0, unix.PTRACE_O_TRACEVFORKDONE, 0, 0)
		if errno != 0 {
			ready <- errno
			return
		}
		ready <- nil
		for {
			var status unix.WaitStatus
			_, err := unix.Wait4(keeper, &status, unix.WALL, nil)
			switch {
			case err == unix.EINTR:
			case err != nil || !status.Stopped():
				return
			case status.TrapCause() == unix.PTRACE_EVENT_VFORK_DONE: // it stays there
			default:
				signal := uintptr(status.StopSignal()) // handed on
				_, _, _ = unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_CONT, uintptr(keeper), 0, signal, 0, 0)
			}
		}
	}()
	if err := <-ready; err != nil {
		t.Fatalf("trace the keeper: %v", err)
	}
	return over
}

// threadStates returns a letter for each thread of a process; none if there is
// no such process.
func threadStates(pid int) (states string) {
	names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, name := range names {
		stat, _ := os.ReadFile(name)
		if _, after, ok := strings.Cut(string(stat), ") "); ok {
			states += after[:1]
		}
	}
	return states
}

// fdCount returns how many descriptors a process has.
func fdCount(t testing.TB, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// childrenOf returns the processes with that parent, zombies included.
func childrenOf(pid int) []process {
	return slices.DeleteFunc(slices.Collect(processes()), func(p process) bool { return p.parent != pid })
}
