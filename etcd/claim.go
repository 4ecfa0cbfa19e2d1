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
// moves it from state to state is the goroutine of Acquire, then that of Release; in
// between, renewals may miss its key. What the watch tells of its keys comes in
// through look while it waits, and through examine while it is held.
type claim struct {
	c    *Cluster
	s    *session
	ref  claimRef
	opts highlander.AcquireOptions

	// The lock of the cluster guards these.
	state   claimState
	created int64         // revision of its key; zero: not known to be there
	seen    time.Duration // when the last request was sent that has found it there
	record  record        // that it wrote when it won, or another for it; without a State before
	lease   *lease.Lease  // nil before it is held
	gone    chan struct{} // closed when it is gone

	// A goroutine puts the record back. That is beside the state: it begins while
	// the claim is held, and may go on for a while when it is leaving.
	mending bool
}

var errClaimGone = errors.New("the claim was deleted")

func (c *Cluster) newClaim(s *session, id string, opts highlander.AcquireOptions) *claim {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.number++
	return c.addClaim(s, claimRef{s.id, id, c.number}, opts)
}

// addClaim returns a claim that is known from now on. The caller has the lock.
func (c *Cluster) addClaim(s *session, ref claimRef, opts highlander.AcquireOptions) *claim {
	cl := &claim{c: c, s: s, ref: ref, opts: opts, gone: make(chan struct{})}
	if c.claims[ref.id] == nil {
		c.claims[ref.id] = map[claimRef]*claim{}
	}
	c.claims[ref.id][ref] = cl
	s.claims++
	return cl
}

// forgetClaim is the opposite of addClaim. The caller has the lock.
func (c *Cluster) forgetClaim(cl *claim) {
	delete(c.claims[cl.ref.id], cl.ref)
	if len(c.claims[cl.ref.id]) == 0 {
		delete(c.claims, cl.ref.id)
	}
	cl.s.claims--
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
