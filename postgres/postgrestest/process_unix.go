//go:build unix

package postgrestest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"highlander/internal/freeze"
)

// account is a user of the machine.
type account struct{ uid, gid int }

// serverAccount returns as whom the server has to run: PostgreSQL refuses root.
func serverAccount() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.Atoi(found.Uid)
		gid, gidErr := strconv.Atoi(found.Gid)
		return &account{uid, gid}, errors.Join(uidErr, gidErr)
	}
	return nil, errors.New("postgrestest: root cannot run PostgreSQL, and there is neither a user postgres nor nobody")
}

func giveTo(path string, as *account) error {
	if as == nil {
		return nil
	}
	return os.Lchown(path, as.uid, as.gid)
}

func runAs(cmd *exec.Cmd, as *account) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if as != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(as.uid), Gid: uint32(as.gid)}
	}
	endWithParent(cmd.SysProcAttr)
}

type signal = syscall.Signal

const (
	stopFast   = syscall.SIGINT
	quitAtOnce = syscall.SIGQUIT
)

// process is a server that runs.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

// start has the keeper start a program, whose output is appended to a file, and
// wait for its end.
func (p programs) start(keeper chan<- func(), log, name string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }()
	run := &process{cmd: p.command(name, args...), ended: make(chan struct{})}
	run.cmd.Stdout, run.cmd.Stderr = out, out
	started := make(chan error)
	keeper <- func() {
		err := run.cmd.Start()
		started <- err
		if err == nil {
			_ = run.cmd.Wait() // its end is told by ended, whatever its exit code
			close(run.ended)
		}
	}
	return run, <-started
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) signal(s signal) error {
	select {
	case <-p.ended:
		return nil
	default:
		return p.cmd.Process.Signal(s)
	}
}

// freeze stops the postmaster first, so that it starts nothing more.
func (p *process) freeze() error {
	if err := freeze.Stop(p.pid()); err != nil {
		return err
	}
	children, err := p.children()
	if err != nil {
		return err
	}
	return freeze.Stop(children...)
}

func (p *process) thaw() error {
	children, err := p.children()
	if err != nil {
		return err
	}
	for _, pid := range children {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return p.signal(syscall.SIGCONT)
}

// children returns the backends and whatever else the postmaster started.
func (p *process) children() ([]int, error) {
	table, err := exec.Command("ps", "-A", "-o", "pid=,ppid=").Output()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var found []int
	for line := range strings.Lines(string(table)) {
		var pid, parent int
		if _, err := fmt.Sscan(line, &pid, &parent); err == nil && parent == p.pid() {
			found = append(found, pid)
		}
	}
	return found, nil
}
