package postgres

import (
	"context"
	"time"

	"highlander/internal/lease"
)

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
