//go:build unix

package guard

import (
	"time"

	"golang.org/x/sys/unix"

	"highlander/internal/boottime"
)

// instant is a moment on the boot clock, in nanoseconds: the same for all
// processes of this machine. Zero is never.
type instant int64

func now() instant {
	var ts unix.Timespec
	// The clock exists, so it cannot fail.
	_ = unix.ClockGettime(bootClock, &ts)
	return instant(ts.Nano())
}

// instantOf converts t, zero to zero. It errs to the early side: if the two
// clocks in t disagree on how far away it is, the wall clock having been set
// or the machine suspended meanwhile, the nearer counts.
func instantOf(t time.Time) instant {
	if t.IsZero() {
		return 0
	}
	// The boot clock first: a freeze in between makes the result earlier.
	boot := now()
	return max(boot+instant(boottime.Until(t)), 1)
}

func (i instant) passed() bool { return i != 0 && now() >= i }
