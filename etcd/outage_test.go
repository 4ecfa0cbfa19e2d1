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
	"highlander/etcd/etcdtest"
)

// lines has what is logged, a line each.
type lines chan string

func (l lines) Write(line []byte) (int, error) {
	l <- string(line)
	return len(line), nil
}

func TestAnOutageSaysWhoDoesNotAnswerAndWhy(t *testing.T) {
	t.Parallel()
	secured := startServer(t, 1, etcdtest.WithTLS()).Endpoints()[0]
	for name, test := range map[string]struct{ url, who, why string }{
		"Refused":          {"etcd://127.0.0.1:1", "http://127.0.0.1:1: ", "connection refused"},
		"UnknownAuthority": {"etcds://" + secured, "https://" + secured + ": ", "certificate signed by unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			logged := make(lines, 100)
			c, err := etcd.Open(test.url, etcd.WithLogger(slog.New(slog.NewTextHandler(logged, nil))))
			must(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() {
				_, err := c.Acquire(ctx, "id", highlander.AcquireOptions{})
				done <- err
			}()
			if got := <-logged; !strings.Contains(got, "level=WARN") || !strings.Contains(got, "no answer from "+test.who) || !strings.Contains(got, test.why) {
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
		})
	}
}

// Whoever gives up is told why it was in vain, also if that is not what the last
// try has ended with.
func TestLookupSaysWhyNobodyAnswers(t *testing.T) {
	t.Parallel()
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	log := when("etcd: a request has failed", func() { cancel(enough) })
	_, err := open(t, "etcd://127.0.0.1:1", etcd.WithLogger(log)).Lookup(ctx, "id")
	if !errors.Is(err, enough) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("Lookup: %v", err)
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
