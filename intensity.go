package highlander

import (
	"slices"
	"time"
)

// intensity counts restarts as OTP's supervisors do: at most max of them
// within a window. A restart that is exactly one window old still counts.
type intensity struct {
	max      int
	window   time.Duration
	restarts []time.Time // within the window, oldest first
}

// allow reports whether the child may be restarted now, and counts it.
func (i *intensity) allow(now time.Time) bool {
	i.restarts = slices.DeleteFunc(i.restarts, func(t time.Time) bool { return now.Sub(t) > i.window })
	i.restarts = append(i.restarts, now)
	return len(i.restarts) <= i.max
}
