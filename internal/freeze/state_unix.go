//go:build unix && !linux

package freeze

import (
	"bytes"
	"errors"
	"os/exec"
	"strconv"
)

// state returns the letter for what a process does, or gone.
func state(pid int) (byte, error) {
	out, err := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return gone, nil // it knows no such process
	}
	if out = bytes.TrimSpace(out); err != nil || len(out) == 0 {
		return gone, err
	}
	return out[0], nil
}
