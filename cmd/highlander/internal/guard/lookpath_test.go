package guard

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestLookPathSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	write := func(name string, mode os.FileMode) string {
		t.Helper()
		if err := os.WriteFile(name, []byte("#!/bin/sh\n"), mode); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	good, plain := write("good", 0o755), write("plain", 0o644)

	for _, name := range []string{"./good", good} {
		if path, err := LookPath(name); err != nil || path != good {
			t.Errorf("LookPath(%q) = %q, %v; want %q", name, path, err, good)
		}
	}
	t.Setenv("PATH", dir)
	if path, err := LookPath("good"); err != nil || path != good {
		t.Errorf("LookPath(good) in PATH = %q, %v", path, err)
	}

	t.Setenv("PATH", ".")
	for _, tc := range []struct {
		name, says string
		code       int
	}{
		{"", "is empty", 127},
		{"no-such-command", "does not exist in any directory of PATH", 127},
		{"./no-such-command", "does not exist", 127},
		{"./good/further", "does not exist", 127},
		{plain, "is not executable", 126},
		{dir, "is a directory", 126},
		{"good", `write "./good" if that one is meant`, 127},
	} {
		_, err := LookPath(tc.name)
		var bad *CommandError
		if !errors.As(err, &bad) || bad.Code != tc.code || !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("LookPath(%q): %v", tc.name, err)
		}
	}
	if _, err := LookPath("good"); !errors.Is(err, exec.ErrDot) {
		t.Errorf("%v does not match exec.ErrDot", err)
	}
}
