package gossip_test

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// aloneEnv names the test that this process was started for.
const aloneEnv = "HIGHLANDER_GOSSIP_TEST_ALONE"

// alone runs a test in a process of its own, beside those of this one: all
// goroutines there are its own, and so is the memory. What it prints shows with -v
// or if it fails. The process may be started by another program.
func alone(t *testing.T, run func(t *testing.T), by ...string) {
	t.Helper()
	if os.Getenv(aloneEnv) == t.Name() {
		run(t)
		return
	}
	t.Parallel()
	command := slices.Concat(by, os.Args[:1], aloneArgs(t))
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
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

// aloneArgs asks a test binary for this test, as this one was asked.
func aloneArgs(t *testing.T) []string {
	args := []string{"-test.v", "-test.run=" + alonePattern(t)}
	if deadline, limited := t.Deadline(); limited {
		args = append(args, "-test.timeout="+time.Until(deadline).String())
	}
	flag.Visit(func(f *flag.Flag) {
		if f.Name == "test.short" || !strings.HasPrefix(f.Name, "test.") {
			args = append(args, "-"+f.Name+"="+f.Value.String())
		}
	})
	return args
}

// alonePattern matches this test, and of what is in it what was asked for.
func alonePattern(t *testing.T) string {
	parts := strings.Split(t.Name(), "/")
	for i, name := range parts {
		parts[i] = "^" + regexp.QuoteMeta(name) + "$"
	}
	asked := flag.Lookup("test.run").Value.String()
	if within := strings.Split(asked, "/"); len(within) > len(parts) && !strings.Contains(asked, "|") {
		parts = append(parts, within[len(parts):]...)
	}
	return strings.Join(parts, "/")
}
