// Package retry is how the engines try again what a server has not done: after
// pauses that grow, and with one line in the log for each outage.
package retry

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is the pauses between the tries of something that fails: each twice as
// long as the one before, from First up to Max, and Jitter of that. One goroutine
// uses it.
type Backoff struct {
	First, Max time.Duration

	last time.Duration
}

// Next returns the next pause.
func (b *Backoff) Next() time.Duration {
	b.last = min(max(2*b.last, b.First), b.Max)
	return Jitter(b.last)
}

// Sleep sleeps for the next pause. It returns false if ctx ended before.
func (b *Backoff) Sleep(ctx context.Context) bool { return Sleep(ctx, b.Next()) }

// Reset makes the next pause the first, as something has succeeded.
func (b *Backoff) Reset() { b.last = 0 }

// Jitter returns a time between half of d and d, at random, so that nodes that have
// failed at once do not all try again at once.
func Jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// Sleep returns true after d, or false as soon as ctx ends.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
