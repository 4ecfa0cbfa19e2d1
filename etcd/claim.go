package etcd

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"highlander"
	"highlander/internal/lease"
)

// claim is one call of Acquire, from its key in etcd to the end of its lease. What
// moves it is the goroutine of Acquire, then that of Release; what others do to its
// keys comes in through examine.
type claim struct {
	c    *Cluster
	s    *session
	ref  claimRef
	opts highlander.AcquireOptions

	// The lock of the cluster guards these.
	created  int64         // revision of its key; zero: not known to be there
	seen     time.Duration // when the last request was sent that has found it there
	gone     bool          // a renewal has not
	record   record        // that it wrote when it won
	won      int64         // revision of that; zero: it has not
	lease    *lease.Lease  // nil before
	leaving  bool          // it is being given up
	mending  bool          // its record is being put back
	finished chan struct{}
}

var errClaimGone = errors.New("the claim was deleted")

func (c *Cluster) newClaim(s *session, id string, opts highlander.AcquireOptions) *claim {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.number++
	cl := &claim{c: c, s: s, ref: claimRef{s.id, id, c.number}, opts: opts, finished: make(chan struct{})}
	if c.claims[id] == nil {
		c.claims[id] = map[claimRef]*claim{}
	}
	c.claims[id][cl.ref] = cl
	s.claims++
	return cl
}

// acquire returns the lease when the claim has won it. Else the claim is given up
// in the background.
func (cl *claim) acquire(ctx context.Context) (*lease.Lease, error) {
	joint, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(cl.s.ctx, func() { cancel(context.Cause(cl.s.ctx)) })()
	l, err := cl.win(joint)
	if err != nil {
		cl.c.spawn(func() { cl.giveUp(cl.c.work) })
	}
	return l, err
}

func (cl *claim) win(ctx context.Context) (*lease.Lease, error) {
	if err := cl.compete(ctx); err != nil {
		return nil, err
	}
	cl.c.log.Debug("the claim has won", "id", cl.ref.id)
	if err := cl.awaitFresh(ctx); err != nil {
		return nil, err
	}
	return cl.grant()
}

func (cl *claim) keys() (key, held string) {
	return cl.c.keys.claim(cl.ref), cl.c.keys.held(cl.ref.id)
}

// alive is the condition that this process has its lease.
func (cl *claim) alive() clientv3.Cmp {
	return clientv3.Compare(clientv3.LeaseValue(cl.c.keys.node(cl.s.id)), "=", cl.s.id)
}
