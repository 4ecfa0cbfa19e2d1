package etcd

import (
	"context"
	"time"

	"highlander"
	"highlander/internal/lease"
)

// awaitFresh waits until a lease that is handed out now would not be about to run
// out.
func (cl *claim) awaitFresh(ctx context.Context) error {
	s := cl.s
	for {
		cl.c.mu.Lock()
		left, lost, accepted := cl.until()-now(), cl.state == claimLost, s.accepted
		cl.c.mu.Unlock()
		if lost || left > cl.opts.StopWithin+lease.Margin+s.terms.TTL/8 {
			return nil
		}
		select {
		case <-accepted:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// grant hands the lease out. What has happened to the claim since it has won is
// looked at then.
func (cl *claim) grant() (*lease.Lease, error) {
	c := cl.c
	c.mu.Lock()
	token, until := cl.record.Token, cl.until()
	c.mu.Unlock()
	l := cl.s.book.Grant(lease.Grant{ID: cl.ref.id, Token: token, StopWithin: cl.opts.StopWithin, Until: until, Release: cl.release, End: cl.over})
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed: // Close knows of no lease: it waits until Acquire has given the claim up
		return nil, highlander.ErrClosed
	case !cl.move(claimHeld): // it was lost, or has run out already
		l.Lose(highlander.ErrLeaseLost)
		return nil, errClaimGone
	}
	cl.lease = l
	l.Renew(cl.until()) // what was renewed meanwhile
	c.examine([]string{cl.ref.id})
	return l, nil
}

// until returns when the lease of the claim runs out: a TTL after the sending of
// the last renewal of the lease in etcd, or of the last request that has found the
// claim there, whichever was first. Somebody may have deleted it since, and the
// others wait for no more than that. The caller has the lock.
func (cl *claim) until() time.Duration {
	return cl.s.terms.Until(min(cl.s.sent, cl.seen))
}

// renewLeases renews what is held. The caller has the lock.
func (c *Cluster) renewLeases(s *session) {
	for _, claims := range c.claims {
		for _, cl := range claims {
			if cl.s == s && cl.state == claimHeld {
				cl.lease.Renew(cl.until())
			}
		}
	}
}

// enteredClaims returns the claims of a session whose keys should be there: also of
// those that have not won, as what follows may be known before the renewal is
// answered.
func (c *Cluster) enteredClaims(s *session) (entered []*claim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, claims := range c.claims {
		for _, cl := range claims {
			if cl.s == s && cl.state.hasKey() {
				entered = append(entered, cl)
			}
		}
	}
	return entered
}

// check compares claims with what a request that was sent at that time has found
// of them: the revisions of their keys.
func (c *Cluster) check(claims []*claim, created map[string]int64, sent time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cl := range claims {
		if created[c.keys.claim(cl.ref)] == cl.created {
			cl.seen = max(cl.seen, sent)
			continue
		}
		if cl.state == claimHeld {
			cl.lease.Lose(highlander.ErrLeaseLost)
		} else {
			cl.move(claimLost)
		}
	}
}
