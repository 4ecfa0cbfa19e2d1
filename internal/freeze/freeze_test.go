//go:build unix

package freeze

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// The kernel says that a busy process has stopped when Stop returns.
func TestNothingHappensAfterStop(t *testing.T) {
	for range 10 {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sh", "-c", "while :; do echo; done")
		cmd.Stdout = w
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if err := Stop(cmd.Process.Pid); err != nil {
			t.Fatal(err)
		}
		var status syscall.WaitStatus
		if pid, err := syscall.Wait4(cmd.Process.Pid, &status, syscall.WUNTRACED|syscall.WNOHANG, nil); pid != cmd.Process.Pid || err != nil || !status.Stopped() {
			t.Errorf("the process runs on after Stop: %d, %v, %v", pid, err, status)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_, _ = r.Close(), w.Close()
	}
}

func TestWhatHasEndedIsStopped(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if err := Stop(cmd.Process.Pid); err != nil {
		t.Error(err)
	}
}
