package highlander_test

import (
	"flag"
	"log/slog"
	"os"
	"testing"

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
	goleak.VerifyTestMain(m)
}
