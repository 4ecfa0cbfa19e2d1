package postgrestest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// programs are where the programs of PostgreSQL are, and as whom they run.
type programs struct {
	dir string
	as  *account // nil: as the user of this process
}

// errMissing says what to do where there is no PostgreSQL.
var errMissing = errors.New("postgrestest: no PostgreSQL server here (initdb and postgres are neither on PATH nor in /usr/lib/postgresql/*/bin); on Debian: apt-get install postgresql")

// find looks for the programs on PATH first, then where Debian has them, the
// newest version first.
func find() (programs, error) {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	debian, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is good
	slices.SortFunc(debian, func(a, b string) int { return compareVersions(b, a) })
	for _, dir := range append(dirs, debian...) {
		_, noInitdb := exec.LookPath(filepath.Join(dir, "initdb"))
		_, noServer := exec.LookPath(filepath.Join(dir, "postgres"))
		if noInitdb == nil && noServer == nil {
			as, err := serverAccount()
			return programs{dir: dir, as: as}, err
		}
	}
	return programs{}, errMissing
}

// compareVersions compares /usr/lib/postgresql/9.6/bin and /usr/lib/postgresql/15/bin.
func compareVersions(a, b string) int {
	if len(a) != len(b) && !strings.Contains(a+b, ".") {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

func (p programs) path(name string) string { return filepath.Join(p.dir, name) }

// command returns one that runs as whom the server runs, in a directory that
// exists for that user.
func (p programs) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(p.path(name), args...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PGDATA=", "TZ=UTC")
	runAs(cmd, p.as)
	return cmd
}

// run runs a program to its end.
func (p programs) run(input, name string, args ...string) error {
	cmd := p.command(name, args...)
	cmd.Stdin = strings.NewReader(input)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// own gives dir and all that is in it to whom the server runs as.
func (p programs) own(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		mode := os.FileMode(0o600)
		if entry.IsDir() {
			mode = 0o700
		}
		if err := os.Chmod(path, mode); err != nil {
			return err
		}
		return giveTo(path, p.as)
	})
}

// requireEnv lists the kinds of tests that must not be skipped.
const requireEnv = "HIGHLANDER_TEST_REQUIRE"

// Need skips the test, with a line that says what to install, where there is no
// PostgreSQL; or fails it, if HIGHLANDER_TEST_REQUIRE has "postgres" in its list.
func Need(t testing.TB) {
	t.Helper()
	_, err := find()
	switch {
	case err == nil:
	case slices.Contains(strings.Split(os.Getenv(requireEnv), ","), "postgres"):
		t.Fatalf("%s asks for PostgreSQL: %v", requireEnv, err)
	default:
		t.Skip(err)
	}
}
