package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"highlander"
)

// tryWithin is how long a server has for one lease before bench begins.
const tryWithin = 10 * time.Second

// try takes a lease on the user's server and removes it, so that what is wrong with
// the server or the rights there is said at once, and not in a measurement that
// waits in vain.
func (b *bench) try(ctx context.Context, at endpoint) error {
	if b.kind&benchServers == 0 {
		return nil
	}
	b.progress.step("trying %s", b.cluster)
	heard := &lastWarning{}
	err := takeOnce(ctx, at.beside("try", b.space), b.id+"/try", slog.New(heard))
	if err == nil {
		return b.tidyUp(ctx)
	}
	_ = b.tidyUp(ctx) // there may be some of it, and what does not work is said already
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("bench: %s: no lease within %v: %w", b.cluster, tryWithin, cmp.Or(heard.error(), err))
	}
	return fmt.Errorf("bench: %s: no lease: %w", b.cluster, withoutPrefix(err))
}

func takeOnce(ctx context.Context, e engine, id string, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, tryWithin)
	defer cancel()
	c, err := e.open(ctx, nil, log)
	if err != nil {
		return err
	}
	defer c.Close()
	lease, err := c.Acquire(ctx, id, highlander.AcquireOptions{})
	if err != nil {
		return err
	}
	return lease.Release(ctx)
}

// lastWarning is a log of which only the last warning is kept.
type lastWarning struct {
	mu   sync.Mutex
	last error
}

// Enabled is for warnings and errors.
func (w *lastWarning) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn
}

// WithAttrs and WithGroup add nothing that is kept.
func (w *lastWarning) WithAttrs([]slog.Attr) slog.Handler { return w }
func (w *lastWarning) WithGroup(string) slog.Handler      { return w }

// Handle notes what went wrong: the error of the warning, if it has one.
func (w *lastWarning) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "error" {
			text = a.Value.String()
		}
		return true
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = errors.New(text)
	return nil
}

func (w *lastWarning) error() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}
