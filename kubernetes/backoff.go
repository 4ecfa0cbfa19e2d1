package kubernetes

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"highlander/internal/retry"
)

const (
	firstPause = 200 * time.Millisecond
	maxPause   = 2 * time.Second // where there is no lease that could run out
)

// backOff is the pauses after failures in a row: longer each time, up to a limit,
// at random, and as long as the server asks for, up to the limit again: a lease
// does not wait for an hour.
type backOff struct{ retry.Backoff }

func newBackOff(limit time.Duration) backOff {
	return backOff{retry.Backoff{First: firstPause, Max: limit}}
}

// sleep returns false if ctx ended before the time was over.
func (b *backOff) sleep(ctx context.Context, failure error) bool {
	pause := b.Next()
	if seconds, ok := apierrors.SuggestsClientDelay(failure); ok {
		pause += min(max(0, time.Duration(seconds)*time.Second), b.Max)
	}
	return retry.Sleep(ctx, pause)
}
