package main

import (
	"context"
	"time"
)

const (
	// A highlander that does not run, such as one that was stopped with
	// SIGSTOP, is given up by the other nodes after 1.5 s at the earliest: they
	// suspect it after 0.4 s, wait for 0.8 s, and ask it once more for 0.3 s. Where
	// leases do not run out, the guard kills the command when it has heard
	// nothing for somewhat less.
	frozenAfter = 1400 * time.Millisecond
	aliveEvery  = 250 * time.Millisecond

	// Where leases run out, the command is killed so long before another node
	// may start: the guard has to get to run, and the kernel to take apart
	// processes that may be many and large. On two cores with a load of 25, the
	// last of 32 processes was gone 153 ms after its deadline, and 380 ms where
	// there was no cgroup (BenchmarkDeadlineToGone of the guard).
	killMargin = 400 * time.Millisecond
)

// deadline keeps the guard told until when the command may live.
type deadline struct {
	lease interface{ Expires() time.Time } // highlander.LeaseInfo
	set   func(time.Time)                  // of the guard

	runsOut bool // the lease does
}

// extend moves the deadline on, and returns when to do so again. Where the lease
// runs out, it is the lease's own end that counts, never that this process lives;
// one that once did never goes back to that. To look at it late only makes the
// deadline too early.
func (d *deadline) extend() (again time.Duration) {
	end := d.lease.Expires()
	switch {
	case !end.IsZero():
		d.runsOut = true
		d.set(end.Add(-killMargin))
		return min(aliveEvery, max(time.Until(end)/8, time.Millisecond))
	case !d.runsOut:
		d.set(time.Now().Add(frozenAfter))
	}
	return aliveEvery
}

// keepExtending extends the deadline until ctx ends.
func (d *deadline) keepExtending(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			timer.Reset(d.extend())
		case <-ctx.Done():
			return
		}
	}
}
