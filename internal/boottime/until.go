package boottime

import "time"

// Until returns how long it is until t. It errs to the early side: where the two
// clocks in t disagree on how far away it is, the wall clock having been set or
// the machine suspended since t was made, the nearer counts. To hold on to a
// moment, read Now first and then Until, and keep their sum.
func Until(t time.Time) time.Duration {
	now := time.Now()
	return min(t.Sub(now), t.Round(0).Sub(now.Round(0)))
}
