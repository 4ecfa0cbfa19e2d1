package etcd_test

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// aloneEnv names the test that this process was started for.
const aloneEnv = "HIGHLANDER_ETCD_TEST_ALONE"

// alone runs a test in processes of its own, one for each list of arguments, side
// by side with each other and with the tests of this process: all goroutines there
// are its own. What they print shows with -v or if it fails. If a part of the test
// is asked for, as with -run Test/part, it runs here.
func alone(t *testing.T, run func(t *testing.T), parts ...[]string) {
	t.Helper()
	if os.Getenv(aloneEnv) == t.Name() || strings.Contains(flag.Lookup("test.run").Value.String(), "/") {
		run(t)
		return
	}
	ended := make([]func() error, len(parts))
	outs := make([]bytes.Buffer, len(parts))
	for i, part := range parts {
		args := append([]string{"-test.v"}, part...)
		if deadline, limited := t.Deadline(); limited {
			args = append(args, "-test.timeout="+time.Until(deadline).String())
		}
		if testing.Short() {
			args = append(args, "-test.short")
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
		cmd.Env = append(os.Environ(), aloneEnv+"="+t.Name())
		cmd.Stdout, cmd.Stderr = &outs[i], &outs[i]
		must(t, cmd.Start())
		ended[i] = cmd.Wait
	}
	t.Parallel() // from here on: they are the longest, and should not wait for others
	for i, part := range parts {
		err := ended[i]()
		t.Logf("in a process of its own, with %v:\n%s", part, outs[i].Bytes())
		if err != nil {
			t.Error(err)
		}
		if !bytes.Contains(outs[i].Bytes(), []byte("--- PASS: "+t.Name()+" ")) {
			t.Errorf("with %v it did not run to its end", part)
		}
	}
}
