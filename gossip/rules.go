package gossip

import (
	"fmt"
	"time"
)

// rules are what all voters of a cluster have to agree on: two parts of it that
// each follow other rules could each elect a holder. The zero value is
// available mode.
type rules struct {
	quorum, voters int
	ttl            time.Duration
}

func (r rules) String() string {
	if r == (rules{}) {
		return "available mode"
	}
	return fmt.Sprintf("quorum %d of %d, TTL %v", r.quorum, r.voters, r.ttl)
}

// rules returns what cfg says about elections; cfg may be unchecked.
func (cfg Config) rules() rules {
	if cfg.Quorum == 0 {
		return rules{}
	}
	r := rules{quorum: cfg.Quorum, voters: cfg.Expect, ttl: cfg.TTL}
	if r.voters == 0 {
		r.voters = 2*cfg.Quorum - 1
	}
	if r.ttl == 0 {
		r.ttl = DefaultTTL
	}
	return r
}

// Of the TTL, this is not available for stopping: what clocks may differ by, and
// the time in which two renewals can be lost before the child has to stop.
const (
	clockShare = 50 // TTL/50 is 2 %
	beatShare  = 4  // a lease is renewed every TTL/4
)

// longest are the rules with the most time to stop.
var longest = rules{ttl: maxTTL}

// stopBudget is how long a child may take to stop at most.
func (r rules) stopBudget() time.Duration { return r.ttl - r.ttl/clockShare - 2*r.ttl/beatShare }

// early is how much earlier than needed a holder is told to stop: timers and
// goroutines are late on a busy machine.
func (r rules) early() time.Duration { return min(r.ttl/50, 100*time.Millisecond) }

// CheckStopWithin returns an error, with the arithmetic, if a child that may take
// d to stop does not fit into the TTL: leases would be lost for want of a single
// renewal, or could not be kept at all. Cluster.Acquire refuses such an
// AcquireOptions.StopWithin. In available mode everything fits.
func (cfg Config) CheckStopWithin(d time.Duration) error { return cfg.rules().checkStopWithin(d) }

func (r rules) checkStopWithin(d time.Duration) error {
	budget := r.stopBudget()
	if r == (rules{}) || d <= budget {
		return nil
	}
	advice := fmt.Sprintf("at most %v to stop is possible, with a TTL of %v", longest.stopBudget(), longest.ttl)
	if d <= longest.stopBudget() {
		least := (d*100/48 + 100*time.Millisecond - 1).Truncate(100 * time.Millisecond)
		advice = fmt.Sprintf("a TTL of at least %v, or at most %v to stop, is needed", least, budget)
	}
	return fmt.Errorf("TTL %v is too short to stop within %v: less %v for clocks and %v for two renewals it leaves %v; %s",
		r.ttl, d, r.ttl/clockShare, 2*r.ttl/beatShare, budget, advice)
}
