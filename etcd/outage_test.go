package etcd_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"highlander"
	"highlander/etcd"
)

// lines has what is logged, a line each.
type lines chan string

func (l lines) Write(line []byte) (int, error) {
	l <- string(line)
	return len(line), nil
}

func TestAnOutageSaysWhoDoesNotAnswer(t *testing.T) {
	t.Parallel()
	logged := make(lines, 100)
	c, err := etcd.Open("etcd://127.0.0.1:1?ttl=1s", etcd.WithLogger(slog.New(slog.NewTextHandler(logged, nil))))
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := c.Acquire(ctx, "id", highlander.AcquireOptions{})
		done <- err
	}()
	if got := <-logged; !strings.Contains(got, "level=WARN") || !strings.Contains(got, "no answer from http://127.0.0.1:1: ") {
		t.Errorf("logged: %s", got)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("acquire: %v", err)
	}
	must(t, c.Close())
	if len(logged) != 0 {
		t.Errorf("logged once more: %s", <-logged)
	}
}

// An outage that costs the session is one line at its start and one at its end.
func TestAnOutageIsSaidOnce(t *testing.T) {
	t.Parallel()
	s := startServer(t, 1)
	logged := make(lines, 10_000)
	c := open(t, s.URL()+"?ttl=4s", etcd.WithLogger(slog.New(slog.NewTextHandler(logged, &slog.HandlerOptions{Level: slog.LevelDebug}))))
	down := false
	await := func(what string) {
		t.Helper()
		for said := false; !said; {
			var line string
			select {
			case line = <-logged:
			case <-time.After(patience):
				t.Fatalf("waited in vain for %q", what)
			}
			said = strings.Contains(line, what)
			switch {
			case strings.Contains(line, "level=WARN") && !down:
				down = true
			case strings.Contains(line, "level=INFO") && down:
				down = false
			case !strings.Contains(line, "level=DEBUG"):
				t.Errorf("logged out of turn: %s", line)
			}
		}
	}
	must(t, acquire(t, c, "id").Release(t.Context()))
	must(t, s.Freeze())
	await("the session was lost")
	must(t, s.Thaw())
	await("etcd can be used again")
}
