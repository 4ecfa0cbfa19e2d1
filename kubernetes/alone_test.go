package kubernetes_test

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

const (
	aloneEnv  = "HIGHLANDER_KUBERNETES_TEST_ALONE"  // the test that this process was started for
	serverEnv = "HIGHLANDER_KUBERNETES_TEST_SERVER" // a kubeconfig of the server to use
)

// alone runs a test in a process of its own, beside those of this one: all
// goroutines there are its own. Of its subtests it runs those that match only, or
// all, but not those that match not. What it prints shows with -v or if it fails.
func alone(t *testing.T, only, not string, run func(t *testing.T)) {
	t.Helper()
	if os.Getenv(aloneEnv) == t.Name() {
		run(t)
		return
	}
	sharedServer(t)
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], aloneArgs(t, only, not)...)
	cmd.Env = append(os.Environ(), aloneEnv+"="+t.Name(), serverEnv+"="+shared.server.Kubeconfig())
	out, err := cmd.CombinedOutput()
	t.Logf("in a process of its own:\n%s", out)
	if err != nil {
		t.Error(err)
	}
	if !bytes.Contains(out, []byte("--- PASS: "+t.Name()+" ")) {
		t.Error("it did not run to its end")
	}
	if asked() == "" && !bytes.Contains(out, []byte("--- PASS: "+t.Name()+"/")) {
		t.Error("it has no such subtests")
	}
}

// aloneArgs asks the test binary for this test, as it was asked for.
func aloneArgs(t *testing.T, only, not string) []string {
	name := "^" + regexp.QuoteMeta(t.Name()) + "$"
	if within := asked(); within != "" {
		only = within
	}
	args := []string{"-test.v", "-test.run=" + name + only}
	if not != "" {
		args = append(args, "-test.skip="+name+not)
	}
	if deadline, limited := t.Deadline(); limited {
		args = append(args, "-test.timeout="+time.Until(deadline).String())
	}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	return args
}

// asked returns what -run says of subtests: a slash and a pattern, or nothing.
func asked() string {
	run := flag.Lookup("test.run").Value.String()
	if test, _, within := strings.Cut(run, "/"); within && !strings.Contains(run, "|") {
		return run[len(test):]
	}
	return ""
}
