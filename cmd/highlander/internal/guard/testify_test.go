//go:build linux

package guard

import (
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// voter is a peer that hears certificates.
type voter struct {
	ln    *net.TCPListener
	again atomic.Int32 // how often, after the first acknowledgement
}

func newVoter(t testing.TB) *voter {
	t.Helper()
	// At an address of its own: for a while, the guards of other tests go on to
	// dial 127.0.0.1 at ports that were their voters'.
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 1+rand.N[byte](254), rand.N[byte](255), 1+rand.N[byte](254))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return &voter{ln: ln}
}

func (v *voter) addr() string { return v.ln.Addr().String() }

// hears waits for a certificate, and leaves the answer to the caller.
func (v *voter) hears(t testing.TB, frame string) net.Conn {
	t.Helper()
	v.ln.SetDeadline(time.Now().Add(safetyNet))
	conn, err := v.ln.Accept()
	if err != nil {
		t.Fatalf("nobody testifies: %v", err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(safetyNet))
	got := make([]byte, len(frame))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != frame {
		t.Fatalf("the voter hears %q, want %q: %v", got, frame, err)
	}
	return conn
}

// acknowledge answers a certificate, which ends the guard. One that did not wait
// for that comes again.
func (v *voter) acknowledge(t testing.TB, conn net.Conn) {
	t.Helper()
	answer := func(conn net.Conn) {
		conn.Write([]byte{'!'})
		conn.Close()
	}
	answer(conn)
	v.ln.SetDeadline(time.Time{})
	var answering sync.WaitGroup
	answering.Go(func() {
		for {
			conn, err := v.ln.Accept()
			if err != nil {
				return
			}
			v.again.Add(1)
			conn.SetDeadline(time.Now().Add(safetyNet))
			conn.Read(make([]byte, maxFrame))
			answer(conn)
		}
	})
	t.Cleanup(func() {
		v.ln.Close()
		answering.Wait()
	})
}

// heardNothing checks that nobody has dialed so far, or dialed again.
func (v *voter) heardNothing(t testing.TB) {
	t.Helper()
	raw, err := v.ln.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		if isReadable(t, int(fd), 0) || v.again.Load() > 0 {
			t.Error("somebody has testified")
		}
	})
}

// gone waits until a process, no child of this one, is.
func gone(t testing.TB, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if !isReadable(t, fd, safetyNet) {
		t.Fatalf("process %d does not end", pid)
	}
}

// isReadable waits until a descriptor is.
func isReadable(t testing.TB, fd int, within time.Duration) bool {
	t.Helper()
	for end := time.Now().Add(within); ; {
		left := max(time.Until(end), 0)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds()))
		if err != unix.EINTR {
			if err != nil {
				t.Fatal(err)
			}
			return n == 1
		}
	}
}

// certify hands a certificate to a highlander.
func (h *highlander) certify(t testing.TB, frame string, voters ...*voter) {
	t.Helper()
	words := []string{"certificate", frame}
	for _, v := range voters {
		words = append(words, v.addr())
	}
	h.tell(t, "%s", strings.Join(words, " "))
	if got := h.report(t); got != "certified" {
		t.Fatalf("highlander reported %q", got)
	}
}

// When the guard speaks, everybody is gone, and nobody waits for the guard:
// highlander's output has ended.
func TestGuardTestifiesAfterTheDeathOf(t *testing.T) {
	for _, tc := range []struct {
		name    string
		victims func(h *highlander) []int
		frozen  func(h *highlander) int
	}{
		{name: "highlander", victims: func(h *highlander) []int { return []int{h.cmd.Process.Pid} }},
		{name: "highlander and keeper", victims: func(h *highlander) []int { return []int{h.cmd.Process.Pid, h.keeper} }},
		{name: "highlander, with a frozen keeper", victims: func(h *highlander) []int { return []int{h.cmd.Process.Pid} }, frozen: func(h *highlander) int { return h.keeper }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			rounds := 5
			if tc.frozen != nil {
				rounds = 1
			}
			for range rounds {
				hall, voters := newHall(t), []*voter{newVoter(t), newVoter(t)}
				// Deaf to SIGTERM, and half of it in sessions of its own.
				h := launch(t, hall.command(t, "ignore-term", "fork", "fork-setsid", "join", "hold"), nil)
				h.ready(t)
				h.certify(t, "old", voters...)
				h.certify(t, "new", voters...)
				h.tell(t, "run")
				members := hall.wait(t, 4)
				if tc.frozen != nil {
					freeze(t, tc.frozen(h))
				}
				begin := time.Now()
				strike(t, tc.victims(h)...)
				var conns []net.Conn
				for _, v := range voters {
					conns = append(conns, v.hears(t, "new"))
					mustBeGone(t, members)
				}
				h.waitAllGone(t) // as far as the output tells
				for i, v := range voters {
					v.acknowledge(t, conns[i])
				}
				answered := time.Since(begin)
				gone(t, h.guard)
				for _, v := range voters {
					if answered < answerWithin {
						v.heardNothing(t) // twice
					}
				}
			}
		})
	}
}

// A process that nobody may kill is waited for: as long as it lives, it would
// be a lie to say that the command is gone.
func TestGuardDoesNotTestifyWhileSomethingIsLeft(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can make a process that an ordinary user may not kill")
	}
	dir, err := os.MkdirTemp("", "setuid")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	hall, v := newHall(t), newVoter(t)
	for _, path := range []string{dir, filepath.Dir(hall.path)} {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(hall.path, 0o777); err != nil {
		t.Fatal(err)
	}
	ordinary, root := filepath.Join(dir, "ordinary"), filepath.Join(dir, "root")
	for path, mode := range map[string]os.FileMode{ordinary: 0o755, root: 0o755 | os.ModeSetuid} {
		copyOfThis(t, path)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	c := hall.command(t, "become-root", "join", "hold")
	c.Path = root
	h := launch(t, c, func(cmd *exec.Cmd) {
		cmd.Path, cmd.Dir = ordinary, dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	})
	h.ready(t)
	h.certify(t, "dead", v)
	h.tell(t, "run")
	m := hall.wait(t, 1)[0]
	strike(t, h.cmd.Process.Pid)
	// The keeper waits for it until the guard loses its patience, and then the
	// guard does.
	begin := time.Now()
	for !slices.ContainsFunc(childrenOf(h.guard), func(p process) bool { return p.pid == m.pid }) {
		if time.Since(begin) > safetyNet {
			t.Fatal("the process does not fall to the guard")
		}
		runtime.Gosched()
	}
	gone(t, h.keeper)
	v.heardNothing(t)
	if states := threadStates(m.pid); strings.Trim(states, "ZX") == "" {
		t.Fatal("the process was killed, so this test shows nothing")
	}
	if err := syscall.Kill(m.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	conn := v.hears(t, "dead")
	m.mustBeGone(t)
	v.acknowledge(t, conn)
	gone(t, h.guard)
}

// copyOfThis copies this binary. Another process does it: a child that another
// test forks here meanwhile would have the copy open for writing, and a program
// that somebody may write to cannot be executed.
func copyOfThis(t *testing.T, path string) {
	t.Helper()
	if out, err := exec.Command("cp", executable(t), path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// Who is alive, be it frozen, is not certified dead.
func TestGuardDoesNotTestifyWhileHighlanderLives(t *testing.T) {
	for name, end := range map[string]func(h *highlander, members []*member){
		"and the guard is killed":  func(h *highlander, _ []*member) { strike(t, h.guard) },
		"and the keeper is killed": func(h *highlander, _ []*member) { strike(t, h.keeper) },
		"frozen, and the keeper is killed": func(h *highlander, members []*member) {
			freeze(t, h.cmd.Process.Pid)
			strike(t, h.keeper)
			waitEnd(t, members)
			syscall.Kill(h.cmd.Process.Pid, syscall.SIGCONT)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hall, v := newHall(t), newVoter(t)
			h := launch(t, hall.command(t, aTree...), nil)
			h.ready(t)
			h.certify(t, "dead", v)
			h.tell(t, "run")
			members := hall.wait(t, 4)
			end(h, members)
			waitEnd(t, members)
			if got := h.report(t); !strings.Contains(got, ErrGuardDied.Error()) {
				t.Errorf("highlander reported %q", got)
			}
			h.waitAllGone(t) // highlander ends by itself then, without a guard
			v.heardNothing(t)
		})
	}
}

func TestGuardDoesNotTestifyAgainstAFrozenHighlander(t *testing.T) {
	t.Parallel()
	withMoreTime(t, func(limit time.Duration) (late string) {
		hall, v := newHall(t), newVoter(t)
		h := launch(t, hall.command(t, "join", "report-signals", "hold"), nil)
		h.ready(t)
		h.certify(t, "dead", v)
		h.tell(t, "run")
		m := hall.wait(t, 1)[0]
		m.next(t) // listening
		begin := time.Now()
		h.tell(t, "deadline %v", limit)
		h.tell(t, "signal") // once heard, guard and keeper know the deadline
		m.lines.Scan()
		if !standStill(t, h.cmd.Process.Pid) || time.Since(begin) > limit {
			return "the deadline was over before highlander stood still"
		}
		m.waitEnd(t)
		v.heardNothing(t)
		if strings.Trim(threadStates(h.guard), "ZX") == "" {
			t.Error("the guard is gone")
		}
		strike(t, h.cmd.Process.Pid) // only now
		v.acknowledge(t, v.hears(t, "dead"))
		gone(t, h.guard)
		return ""
	})
}

func TestClosedGuardSaysNothing(t *testing.T) {
	g, hall, v := startGuard(t), newHall(t), newVoter(t)
	g.SetCertificate(Certificate{Frame: []byte("dead"), Peers: []string{v.addr()}})
	ended := g.inBackground(t.Context(), hall.command(t, aTree...))
	hall.wait(t, 4)
	g.Close()
	want(t, await(t, ended), 0, ErrClosed)
	v.heardNothing(t)
	g.SetCertificate(Certificate{Frame: []byte("dead"), Peers: []string{v.addr()}})
}

// The end of the pipe is no death.
func TestGuardDoesNotTestifyWhenThePipeEndsAlone(t *testing.T) {
	t.Parallel()
	g, v := startGuard(t), newVoter(t)
	g.SetCertificate(Certificate{Frame: []byte("dead"), Peers: []string{v.addr()}})
	g.link.down.pipe.Close()
	<-g.link.done
	v.heardNothing(t)
}

// The guard that follows one that died has the certificate, too.
func TestNextGuardTestifies(t *testing.T) {
	hall, v := newHall(t), newVoter(t)
	h := launch(t, hall.command(t, "join", "hold"), nil)
	h.ready(t)
	h.certify(t, "dead", v)
	h.tell(t, "keep running")
	members := hall.wait(t, 1)
	strike(t, h.guard)
	waitEnd(t, members)
	members = hall.wait(t, 1)
	strike(t, h.cmd.Process.Pid)
	conn := v.hears(t, "dead")
	mustBeGone(t, members)
	v.acknowledge(t, conn)
	h.waitAllGone(t)
}

// A voter that cannot be reached, or that does not know the node yet, is told
// again; the others need not wait for that.
func TestGuardTriesAgain(t *testing.T) {
	t.Parallel()
	deaf, slow, v := newVoter(t), newVoter(t), newVoter(t)
	deaf.ln.Close()
	h := launch(t, Command{}, nil)
	h.ready(t)
	h.certify(t, "dead", deaf, slow, v)
	strike(t, h.cmd.Process.Pid)
	v.acknowledge(t, v.hears(t, "dead"))
	for range 3 {
		slow.hears(t, "dead").Close()
	}
	slow.acknowledge(t, slow.hears(t, "dead"))
	reopened, err := net.Listen("tcp", deaf.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer reopened.Close()
	deaf = &voter{ln: reopened.(*net.TCPListener)}
	deaf.acknowledge(t, deaf.hears(t, "dead"))
	gone(t, h.guard)
}

// Supervisors ask what is left of a service to end, which must not wait for a
// voter that is never heard of again.
func TestGuardThatIsAskedToEndDoesSoon(t *testing.T) {
	t.Parallel()
	deaf, v := newVoter(t), newVoter(t)
	deaf.ln.Close()
	h := launch(t, Command{}, nil)
	h.ready(t)
	h.certify(t, "dead", deaf, v)
	begin := time.Now()
	strike(t, h.cmd.Process.Pid)
	conn := v.hears(t, "dead")
	if err := syscall.Kill(h.guard, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	v.acknowledge(t, conn)
	gone(t, h.guard)
	if took := time.Since(begin); took > testifyFor/2 {
		t.Errorf("it took %v", took)
	}
}

func TestCertificateIsBounded(t *testing.T) {
	large := Certificate{Frame: make([]byte, maxFrame+1), Peers: []string{"127.0.0.1:1"}}
	if got := large.bounded(discard); got.Frame != nil {
		t.Errorf("a frame of %d bytes is kept", len(got.Frame))
	}
	many := Certificate{Frame: []byte("dead"), Peers: make([]string, maxPeers+1)}
	if got := many.bounded(discard); string(got.Frame) != "dead" || len(got.Peers) != maxPeers {
		t.Errorf("%d peers are kept", len(got.Peers))
	}
}

// BenchmarkKilledToCertified is the time from the death of highlander to the
// moment at which a voter has been told that nothing of the command is left.
func BenchmarkKilledToCertified(b *testing.B) {
	var took []time.Duration
	for b.Loop() {
		hall, v := newHall(b), newVoter(b)
		h := launch(b, hall.command(b, aTree...), nil)
		h.ready(b)
		h.certify(b, "dead", v)
		h.tell(b, "run")
		hall.wait(b, 4)
		begin := time.Now()
		strike(b, h.cmd.Process.Pid)
		conn := v.hears(b, "dead")
		took = append(took, time.Since(begin))
		v.acknowledge(b, conn)
		h.waitAllGone(b)
		gone(b, h.guard)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs-median")
	b.ReportMetric(float64(took[len(took)-1].Microseconds()), "µs-max")
}
