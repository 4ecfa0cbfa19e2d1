package postgres_test

import (
	"bytes"
	"log/slog"
	"sync"
	"testing"
)

// logger logs to the test, until that has ended.
func (w *world) logger(name string) *slog.Logger {
	out := &testLog{t: w.T, name: name}
	w.after = append(w.after, out.stop)
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type testLog struct {
	name string

	mu sync.Mutex
	t  *testing.T // nil when the test has ended
}

func (l *testLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.t != nil {
		l.t.Logf("%s: %s", l.name, bytes.TrimSpace(line))
	}
	return len(line), nil
}

func (l *testLog) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.t = nil
}
