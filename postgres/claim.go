package postgres

import (
	"context"
	"errors"
	"fmt"
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

// hold is an id that this node has at the server, from the moment it got it until
// that is told to the others. The goroutine of the node owns it.
type hold struct {
	id    string
	key   int64
	token int64
	meta  string
	since time.Time
	lease *lease.Lease // nil if nobody here wants it any more

	session  int64 // in which it is held
	locked   bool  // that session has the lock
	giveBack bool  // the child has stopped, or the time for it is over
	waiting  []chan<- error
}

// live reports whether the child of a lease may go on.
func (h *hold) live() bool {
	return h.lease != nil && h.lease.Err() == nil
}

// grant hands a lease to its claim, or gives it back if that has been given up.
func (n *node) grant(cl *claim, h *hold) {
	n.holds[h.id] = h
	delete(n.claims, cl.seat)
	cl.queued = false // whoever takes an id leaves its queue
	if !cl.place.leaveFor(claimServed) {
		h.giveBack = true
		return
	}
	h.lease = n.book.Grant(lease.Grant{
		ID: h.id, Token: uint64(h.token), StopWithin: cl.stopWithin, Until: n.until,
		Release: func(ctx context.Context) error { return n.release(ctx, h) },
		End:     func() { n.do(func() { h.giveBack = true }) },
	})
	cl.lease = h.lease
	close(cl.done)
}

var errRanOut = errors.New("the server did not answer before the lease has run out")

// release tells the others that the child has stopped. Whatever becomes of this
// call, the node goes on trying to.
func (n *node) release(ctx context.Context, h *hold) error {
	done := make(chan error, 1)
	n.do(func() {
		if n.holds[h.id] != h { // the time for the child was over
			done <- nil
			return
		}
		h.giveBack = true
		h.waiting = append(h.waiting, done)
	})
	ranOut := time.NewTimer(max(n.c.opTimeout(), h.lease.Until()-n.clock()))
	defer ranOut.Stop()
	select {
	case err := <-done:
		return err
	case <-n.ended:
		return highlander.ErrClosed
	case <-ranOut.C:
		return fmt.Errorf("postgres: release %q: %w", h.id, errRanOut)
	case <-ctx.Done():
		return fmt.Errorf("postgres: release %q: %w", h.id, context.Cause(ctx))
	}
}
