package freeze

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// state returns the letter for what a process does, or gone.
func state(pid int) (byte, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return gone, nil
	}
	if err != nil {
		return gone, err
	}
	_, after, ok := bytes.Cut(text[bytes.LastIndexByte(text, ')')+1:], []byte(" "))
	if !ok || len(after) == 0 {
		return gone, fmt.Errorf("%q has no state", text)
	}
	return after[0], nil
}
