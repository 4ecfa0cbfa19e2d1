package boottime_test

import (
	"testing"
	"time"

	"highlander/internal/boottime"
)

// That the nearer of two clocks that disagree counts is not shown with both
// readings in one time, for package time has no way to make such a time; but one
// without a monotonic reading counts by its wall clock.
func TestUntilIsTheTimeThatIsLeft(t *testing.T) {
	for _, in := range []time.Duration{-time.Hour, time.Hour} {
		at := time.Now().Add(in)
		for _, at := range []time.Time{at, at.Round(0)} {
			if got := boottime.Until(at); got > in || got < in-time.Minute {
				t.Errorf("until a moment in %v it is %v", in, got)
			}
		}
	}
}
