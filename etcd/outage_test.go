package etcd_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

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
