package postgres_test

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// aloneEnv names the test that this process was started for.
const aloneEnv = "HIGHLANDER_POSTGRES_TEST_ALONE"

// alone runs a test in a process of its own, beside those of this one: all
// goroutines there are its own. What it prints shows with -v or if it fails.
func alone(t *testing.T, run func(t *testing.T)) {
	t.Helper()
	if os.Getenv(aloneEnv) == t.Name() {
		run(t)
		return
	}
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], aloneArgs(t)...)
	cmd.Env = append(os.Environ(), aloneEnv+"="+t.Name())
	out, err := cmd.CombinedOutput()
	t.Logf("in a process of its own:\n%s", out)
	if err != nil {
		t.Error(err)
	}
	if !bytes.Contains(out, []byte("--- PASS: "+t.Name()+" ")) {
		t.Error("it did not run to its end")
	}
}

// aloneArgs asks the test binary for this test, as it was asked for.
func aloneArgs(t *testing.T) []string {
	pattern := "^" + regexp.QuoteMeta(t.Name()) + "$"
	if asked := flag.Lookup("test.run").Value.String(); strings.Contains(asked, "/") && !strings.Contains(asked, "|") {
		_, within, _ := strings.Cut(asked, "/")
		pattern += "/" + within
	}
	args := []string{"-test.v", "-test.run=" + pattern}
	if deadline, limited := t.Deadline(); limited {
		args = append(args, "-test.timeout="+time.Until(deadline).String())
	}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	return args
}
