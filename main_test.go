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
	if err := flag.Set("rapid.checks", "2000"); err != nil { // the command line still counts
		panic(err)
	}
	slog.SetDefault(slog.New(slog.DiscardHandler))
	goleak.VerifyTestMain(m)
}
