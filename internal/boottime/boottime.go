// Package boottime is the clock by which leases end. Go's own monotonic clock
// stands still while the machine is suspended (golang/go#24595), but the leases
// that others count on do not.
package boottime

import "time"

// Now returns the time since a fixed moment, such as the boot of the machine.
// It never goes back, whoever sets the wall clock, and on Linux it runs on
// while the machine is suspended. On other systems that depends on what Go's
// monotonic clock does there.
func Now() time.Duration { return now() }
