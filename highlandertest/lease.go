package highlandertest

import (
	"context"
	"time"

	"highlander"
)

// claim is one Acquire: it waits, then holds, then has ended. It is the Lease
// of the one who called. Its fields are guarded by node.cluster.mu.
type claim struct {
	node       *node
	seq        uint64 // the order in which claims were made
	id         string
	meta       string
	stopWithin time.Duration

	granted chan struct{} // closed when it holds
	won     uint64        // the token it won with; 0 while it waits
	token   uint64        // the token now
	since   time.Time

	done    chan struct{} // closed when it has ended, or is about to
	err     error         // why
	expires time.Time
	timer   *time.Timer // ends it at expires
}

func newClaim(n *node, seq uint64, id string, opts highlander.AcquireOptions) *claim {
	return &claim{
		node:       n,
		seq:        seq,
		id:         id,
		meta:       opts.Meta,
		stopWithin: opts.StopWithin,
		granted:    make(chan struct{}),
		done:       make(chan struct{}),
	}
}

// win makes the claim the holder.
func (cl *claim) win(token uint64, now time.Time) {
	cl.won, cl.token, cl.since = token, token, now
	close(cl.granted)
}

// holds reports whether the claim has a lease that nothing has happened to.
func (cl *claim) holds() bool { return cl.token != 0 && cl.err == nil }

// end closes Done, unless it is closed already.
func (cl *claim) end(err error) {
	if cl.timer != nil {
		cl.timer.Stop()
	}
	delete(cl.node.claims, cl)
	cl.tell(err)
}

// expire tells the holder that its lease runs out, and ends it when it does.
func (cl *claim) expire() {
	cl.expires = time.Now().Add(cl.stopWithin)
	cl.tell(highlander.ErrLeaseLost)
	if cl.stopWithin == 0 {
		cl.quit()
		return
	}
	cl.timer = time.AfterFunc(cl.stopWithin, func() {
		cl.node.cluster.mu.Lock()
		defer cl.node.cluster.mu.Unlock()
		cl.quit()
	})
}

// tell closes Done with a reason. The first one stands.
func (cl *claim) tell(err error) {
	if cl.err == nil {
		cl.err = err
		close(cl.done)
	}
}

// quit ends the claim and hands over to the next in line.
func (cl *claim) quit() {
	cl.end(highlander.ErrClosed)
	cl.node.cluster.leave(cl)
}

// holder is the claim as Lookup shows it.
func (cl *claim) holder() highlander.Holder {
	return highlander.Holder{ID: cl.id, Node: cl.node.name, Meta: cl.meta, Token: cl.token, Since: cl.since}
}

// Token returns the token.
func (cl *claim) Token() uint64 {
	cl.node.cluster.mu.Lock()
	defer cl.node.cluster.mu.Unlock()
	return cl.token
}

// Done is closed when the lease has ended, or is about to.
func (cl *claim) Done() <-chan struct{} { return cl.done }

// Err says why Done is closed.
func (cl *claim) Err() error {
	cl.node.cluster.mu.Lock()
	defer cl.node.cluster.mu.Unlock()
	return cl.err
}

// Expires is zero until Cluster.Expire.
func (cl *claim) Expires() time.Time {
	cl.node.cluster.mu.Lock()
	defer cl.node.cluster.mu.Unlock()
	return cl.expires
}

// Release hands over to the next in line. It never fails.
func (cl *claim) Release(context.Context) error {
	cl.node.cluster.mu.Lock()
	defer cl.node.cluster.mu.Unlock()
	cl.quit()
	return nil
}
