package boottime_test

import (
	"testing"
	"time"

	"highlander/internal/boottime"
)

func TestNowRunsWithTheMonotonicClock(t *testing.T) {
	before, start := boottime.Now(), time.Now()
	for time.Since(start) < 5*time.Millisecond {
	}
	went, atLeast := boottime.Now()-before, 5*time.Millisecond
	if went < atLeast {
		t.Fatalf("in %v the clock went on by %v", atLeast, went)
	}
}

func TestNowNeverGoesBack(t *testing.T) {
	last := boottime.Now()
	for range 100_000 {
		now := boottime.Now()
		if now < last {
			t.Fatalf("from %v back to %v", last, now)
		}
		last = now
	}
}
