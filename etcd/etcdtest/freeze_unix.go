//go:build unix

package etcdtest

import (
	"os/exec"
	"syscall"

	"highlander/internal/freeze"
)

// separate puts a member into a process group of its own: a signal that the
// terminal sends to the test is not for it, and when the test dies while the
// member is frozen, the kernel ends it, as its group is an orphan then.
func separate(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func (m *member) freeze() error {
	if m.cmd == nil {
		return errNotRunning
	}
	return freeze.Stop(m.cmd.Process.Pid)
}

func (m *member) thaw() error {
	if m.cmd == nil {
		return errNotRunning
	}
	return m.cmd.Process.Signal(syscall.SIGCONT)
}
