package highlander_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"highlander"
	"highlander/highlandertest"
)

// overrunEnv makes the test binary a process whose child does not stop. Its
// value says what ends: the lease or the context of Serve.
const overrunEnv = "HIGHLANDER_TEST_OVERRUN"

func overrunForReal() {
	cluster := highlandertest.New()
	ctx, cancel := context.WithCancel(context.Background())
	child := func(ctx context.Context) error {
		if os.Getenv(overrunEnv) == "lease" {
			cluster.Expire("stuck")
		} else {
			cancel()
		}
		<-ctx.Done()
		select {} // it does not stop
	}
	overrun := func(e highlander.Event) {
		if e.Kind == highlander.EventOverrun && e.Err == highlander.ErrShutdown {
			fmt.Println("still there after the overrun")
			os.Exit(3)
		}
	}
	err := highlander.Wrap(cluster.Node("a"), highlander.ChildSpec{
		ID:       "stuck",
		Service:  highlander.ServiceFunc(child),
		Shutdown: 50 * time.Millisecond,
	}, highlander.WithExitOnOverrun(), highlander.WithObserver(overrun)).Serve(ctx)
	fmt.Println("Serve returned", err)
	os.Exit(4)
}

// The real thing, in a process of its own: goroutines cannot be killed, the
// process can. It must happen for a lost lease and only for that.
func TestExitOnOverrunEndsTheProcess(t *testing.T) {
	for ends, want := range map[string]struct {
		code   int
		output string
	}{
		"lease":   {1, "child is still running though its lease has ended"},
		"context": {3, "still there after the overrun"},
	} {
		t.Run(ends, func(t *testing.T) {
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), self)
			cmd.Env = append(os.Environ(), overrunEnv+"="+ends)
			output, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != want.code {
				t.Errorf("process ended with %v, want exit code %d", err, want.code)
			}
			if !strings.Contains(string(output), want.output) {
				t.Errorf("output is\n%s\nwant %q in it", output, want.output)
			}
		})
	}
}
