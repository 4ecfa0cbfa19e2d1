package postgres

import (
	"sync/atomic"
	"time"

	"highlander"
	"highlander/internal/lease"
)

// claim is one call of Acquire, until it is served or given up. It has a row in
// waiters: its seat.
type claim struct {
	seat       int64
	id         string
	meta       string
	stopWithin time.Duration

	queued bool // the row is there
	place  claimPlace
	done   chan struct{} // closed when it is served, with ...
	lease  *lease.Lease
	err    error
}

// claimPlace says who decides about a claim: the first to move it on does.
type claimPlace struct{ atomic.Int32 }

const (
	claimWaits int32 = iota
	claimServed
	claimGivenUp
)

func (p *claimPlace) leaveFor(next int32) bool { return p.CompareAndSwap(claimWaits, next) }

func (n *node) newClaim(id string, opts highlander.AcquireOptions) *claim {
	return &claim{seat: n.seats.Add(1), id: id, meta: opts.Meta, stopWithin: opts.StopWithin, done: make(chan struct{})}
}

// fail ends the wait of a claim.
func (cl *claim) fail(err error) {
	if cl.place.leaveFor(claimServed) {
		cl.err = err
		close(cl.done)
	}
}

// giveUp reports whether the caller was first. Then the claim has nothing, or what
// it got is released.
func (n *node) giveUp(cl *claim) bool {
	if !cl.place.leaveFor(claimGivenUp) {
		return false
	}
	n.do(func() {
		delete(n.claims, cl.seat)
		if cl.queued {
			n.leaving = append(n.leaving, cl)
		}
	})
	return true
}
