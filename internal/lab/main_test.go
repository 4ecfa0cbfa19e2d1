//go:build linux

package lab

import (
	"context"
	"flag"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	ChildMain()
	crashMain()
	flag.Parse()
	// With -race every child would sleep for a second before it exits.
	os.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0")
	if given := flag.Lookup("test.parallel"); given.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		flag.Set("test.parallel", "64") // they wait for processes most of the time
	}
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// safetyNet is when a test gives up. Nothing is expected to take as long.
const safetyNet = 60 * time.Second

var built struct {
	once        sync.Once
	dir, binary string
	err         error
}

// binary builds highlander, once.
func binary(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "highlander-lab-*"); built.err == nil {
			built.binary, built.err = Build(t.Context(), built.dir)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.binary
}

// requireEnv lists the kinds of tests that must not be skipped.
const requireEnv = "HIGHLANDER_TEST_REQUIRE"

// needLab skips the test where there can be no lab.
func needLab(t testing.TB) {
	t.Helper()
	err := Possible()
	switch {
	case err == nil:
	case slices.Contains(strings.Split(os.Getenv(requireEnv), ","), "lab"):
		t.Fatalf("%s asks for the lab: %v", requireEnv, err)
	default:
		t.Skipf("no lab here: %v", err)
	}
}

// newLab builds a lab whose logs are shown if the test fails.
func newLab(t *testing.T, cfg Config) *Lab {
	t.Helper()
	needLab(t)
	cfg.Binary, cfg.Dir = binary(t), place(t)
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		if t.Failed() {
			for _, n := range l.Nodes {
				t.Logf("log of %s:\n%s", n.Name, n.LogTail(16<<10))
			}
		}
	})
	return l
}

// within is a context that ends with the test or when it takes too long.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), safetyNet)
	t.Cleanup(cancel)
	return ctx
}
