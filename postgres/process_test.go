//go:build unix

package postgres_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is a node in a process of its own.
type process struct {
	w    *world
	cmd  *exec.Cmd
	said *bufio.Scanner
}

// process starts one and waits until it holds the id.
func (w *world) process(url string) *process {
	w.Helper()
	sep := "?"
	if strings.Contains(url, "?") {
		sep = "&"
	}
	url += fmt.Sprintf("%sname=process&ttl=%v&schema=%s", sep, w.ttl, w.schema)
	p := &process{w: w, cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), processEnv+"="+url)
	p.cmd.Stderr = os.Stderr
	out, outErr := p.cmd.StdoutPipe()
	_, inErr := p.cmd.StdinPipe()
	if outErr != nil || inErr != nil {
		w.Fatal(outErr, inErr)
	}
	if err := p.cmd.Start(); err != nil {
		w.Fatal(err)
	}
	w.after = append(w.after, p.kill)
	p.said = bufio.NewScanner(out)
	p.says("held")
	return p
}

// says waits for the next thing that the process says.
func (p *process) says(what string) {
	p.w.Helper()
	if !p.said.Scan() || !strings.HasPrefix(p.said.Text(), what) {
		p.w.Fatalf("the process says %q; want %s", p.said.Text(), what)
	}
}

func (p *process) signal(s os.Signal) {
	p.w.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.w.Fatal(err)
	}
}

// kill ends it with SIGKILL.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have been before
	_ = p.cmd.Wait()
}

func TestKilledProcessIsSucceededLongBeforeItsLeaseRunsOut(t *testing.T) {
	t.Parallel()
	server := startServer(t, "ssl = on") // sessions that other tests end would leave a doubt
	for name, url := range map[string]string{"TCP": server.URL(), "TLS": server.TLSURL(), "unix socket": server.SocketURL()} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, server, forever)
			p := w.process(url)
			next := w.queue(w.open(url, "next"), "id")
			other := w.queue(w.open(url, "other"), "id")
			w.eventually("the ring is closed", func() bool { return w.ringIsClosed(3) })
			next.stillWaits()
			killed := time.Now()
			p.kill()
			l := next.lease()
			t.Logf("succeeded %v after the SIGKILL", time.Since(killed))
			w.logs("the process of a node has died; taking over")
			other.stillWaits()
			w.release(l)
			w.release(other.lease())
		})
	}
}

func TestFrozenProcessIsSucceededWhenItsLeaseHasRunOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharedServer(t), time.Second)
	p := w.process(w.server.URL())
	next := w.queue(w.open(w.server.URL(), "next"), "id")
	p.signal(syscall.SIGSTOP)
	frozen := time.Now()
	l := next.lease()
	if after := time.Since(frozen); after < w.ttl*3/4-w.ttl/4 {
		t.Errorf("succeeded after %v; the last renewal was at most %v before the freeze", after, w.ttl/4)
	}
	w.logs("a node has not renewed its leases for its TTL; taking over")
	p.signal(syscall.SIGCONT)
	p.says("lost")
	w.isHeld(l)
}
