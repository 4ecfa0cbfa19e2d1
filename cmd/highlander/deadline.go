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
	lease   interface{ Expires() time.Time } // highlander.LeaseInfo
	runsOut bool                             // the lease does
	set     func(time.Time)                  // of the guard
	end     time.Time                        // of the lease, as far as the guard knows
}

// extend moves the deadline on, and returns when to do so again. Where leases run
// out, it is the lease's own end that counts, never that this process lives: as
// long as the engine knows of none, nothing is moved on, and no command starts. To
// look at it late only makes the deadline too early.
func (d *deadline) extend() (again time.Duration) {
	if !d.runsOut {
		d.set(time.Now().Add(frozenAfter))
		return aliveEvery
	}
	if end := d.lease.Expires(); !end.IsZero() {
		d.end = end
	}
	d.set(d.end.Add(-killMargin))
	return min(aliveEvery, max(time.Until(d.end)/8, time.Millisecond))
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
