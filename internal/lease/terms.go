package lease

import (
	"fmt"
	"time"

	"highlander"
)

// Margin is how much earlier than needed a holder is told to stop: the book
// looks at the clock in steps, and goroutines are late on a busy machine.
const Margin = 100 * time.Millisecond

// clockShare is the part of the TTL by which the clocks of two machines may
// differ while it passes: 2 %.
const clockShare = 50

// Terms are how long a lease lasts without renewal, and how often it is renewed.
type Terms struct {
	TTL   time.Duration
	Every time.Duration // less than half of TTL
}

// Until returns when a lease runs out that was won or renewed by a request sent
// at that time, by the same clock.
func (t Terms) Until(sent time.Duration) time.Duration { return sent + t.TTL - t.TTL/clockShare }

// CheckStopWithin returns an error, with the arithmetic, if a child that may take
// d to stop does not fit into the TTL: its lease would be lost for want of a
// single renewal, or could not be kept at all.
func (t Terms) CheckStopWithin(d time.Duration) error {
	budget := t.stopBudget()
	if d <= budget {
		return nil
	}
	return fmt.Errorf("TTL %v is too short to stop within %v: less %v for clocks, %v for two renewals and %v for a busy machine it leaves %v; a TTL of at least %v, or at most %v to stop, is needed",
		t.TTL, d, t.TTL/clockShare, 2*t.Every, Margin, budget, t.leastTTL(d), budget)
}

// CheckAcquire returns what is wrong with the arguments of an Acquire, in one line;
// nil if nothing is.
func (t Terms) CheckAcquire(id string, opts highlander.AcquireOptions) error {
	if err := highlander.ValidateID(id); err != nil {
		return fmt.Errorf("acquire: %w", err)
	}
	if err := opts.Validate(); err != nil {
		return fmt.Errorf("acquire %q: %w", id, err)
	}
	if err := t.CheckStopWithin(opts.StopWithin); err != nil {
		return fmt.Errorf("acquire %q: AcquireOptions.StopWithin: %w", id, err)
	}
	return nil
}

// stopBudget is how long a child may take to stop at most.
func (t Terms) stopBudget() time.Duration {
	return max(0, t.TTL-t.TTL/clockShare-2*t.Every-Margin)
}

// leastTTL is the shortest TTL, in whole seconds, into which d fits, with as many
// renewals in it as now.
func (t Terms) leastTTL(d time.Duration) time.Duration {
	left := 1 - 1.0/clockShare - 2*t.Every.Seconds()/t.TTL.Seconds()
	least := (d + Margin).Seconds() / left
	return time.Duration(least+1) * time.Second
}
