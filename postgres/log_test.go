package postgres_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

// logger logs to the test, until that has ended.
func (w *world) logger(name string) *slog.Logger {
	return slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// testLog is what the nodes of a world have logged.
type testLog struct {
	mu    sync.Mutex
	t     *testing.T // nil when the test has ended
	lines []string
}

func (l *testLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.t != nil {
		l.lines = append(l.lines, string(line))
		l.t.Logf("%s", bytes.TrimSpace(line))
	}
	return len(line), nil
}

func (l *testLog) has(what string) bool { return l.count(what) > 0 }

func (l *testLog) count(what string) (lines int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, what) {
			lines++
		}
	}
	return lines
}

func (l *testLog) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.t = nil
}
