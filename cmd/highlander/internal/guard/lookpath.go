package guard

import (
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Exit codes of a shell for a command that cannot be run.
const (
	codeNotExecutable = 126
	codeNotFound      = 127
)

// CommandError says in one line why a command cannot be run.
type CommandError struct {
	Name   string // the command as it was given
	Reason string
	Code   int // what a shell exits with: 127 not found, 126 not executable
	Err    error
}

func (e *CommandError) Error() string { return fmt.Sprintf("command %q %s", e.Name, e.Reason) }

// Unwrap returns what the operating system said.
func (e *CommandError) Unwrap() error { return e.Err }

// LookPath finds the executable that name stands for, as a shell would, and
// returns its absolute path. Call it at start-up, so that a command that
// cannot be run starts nothing at all. Its errors are *CommandError.
func LookPath(name string) (string, error) {
	if name == "" {
		return "", &CommandError{Reason: "is empty; the name or the path of an executable is needed", Code: codeNotFound}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", lookPathError(name, path, err)
	}
	path, err = filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("find command %q: %w", name, err)
	}
	return path, nil
}

func lookPathError(name, found string, err error) *CommandError {
	var cause *exec.Error // its text repeats the name
	if errors.As(err, &cause) {
		err = cause.Err
	}
	bad := &CommandError{Name: name, Code: codeNotFound, Err: err}
	switch {
	case errors.Is(err, exec.ErrDot):
		bad.Reason = fmt.Sprintf("was found in the current directory only; write %q if that one is meant", "."+string(filepath.Separator)+filepath.Base(found))
	case errors.Is(err, syscall.EISDIR):
		bad.Reason, bad.Code = "is a directory, not an executable", codeNotExecutable
	case errors.Is(err, fs.ErrPermission):
		bad.Reason, bad.Code = "is not executable", codeNotExecutable
	case errors.Is(err, exec.ErrNotFound) && !strings.ContainsRune(name, filepath.Separator):
		bad.Reason = "does not exist in any directory of PATH"
	default:
		bad.Reason = "does not exist"
	}
	return bad
}

// startError says why the operating system refused to start path.
func startError(path string, err error) *CommandError {
	bad := &CommandError{Name: path, Reason: fmt.Sprintf("cannot be started: %v", err), Code: codeNotExecutable, Err: err}
	if errors.Is(err, fs.ErrNotExist) {
		bad.Reason, bad.Code = "cannot be started: it, its interpreter or its directory does not exist", codeNotFound
	}
	return bad
}
