//go:build unix

package kubernetestest

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"highlander/internal/freeze"
)

// process is a server that runs.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

// starter starts processes, one after the other, and waits for their end. It is a
// goroutine with a thread of its own, because the parent's death that a server
// ends with is that of the thread; and the same one for as long as a Server
// exists, so that tests which look for goroutines left behind do not find it.
type starter struct{ runs chan func() }

func newStarter() *starter {
	s := &starter{make(chan func())}
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for run := range s.runs {
			run()
		}
	}()
	return s
}

func (s *starter) close() { close(s.runs) }

// start starts a program whose output is appended to a file.
func (s *starter) start(log, program string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }()
	p := &process{cmd: exec.Command(program, args...), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	endWithParent(p.cmd.SysProcAttr)
	started := make(chan error)
	s.runs <- func() {
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // its end is told by ended, whatever its exit code
			close(p.ended)
		}
	}
	return p, <-started
}

func (p *process) kill() error   { return p.cmd.Process.Kill() }
func (p *process) freeze() error { return freeze.Stop(p.cmd.Process.Pid) }
func (p *process) thaw() error   { return p.cmd.Process.Signal(syscall.SIGCONT) }
