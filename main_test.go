package highlander_test

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(overrunEnv) != "" {
		overrunForReal()
	}
	for name, value := range map[string]string{"rapid.checks": "2000", "rapid.nofailfile": "true"} { // the command line still counts
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	slog.SetDefault(slog.New(slog.DiscardHandler))
	code := m.Run()
	if code == 0 && !leavesNothing() {
		code = 1
	}
	os.Exit(code)
}

// leavesNothing waits until no goroutine is left of the tests.
func leavesNothing() bool {
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if err = goleak.Find(); err == nil { // it tries again for a while
			return true
		}
	}
	fmt.Fprintln(os.Stderr, "goroutines were left behind:", err)
	return false
}
