package etcd

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// compete returns when the claim has won.
func (cl *claim) compete(ctx context.Context) error {
	won, err := cl.enter(ctx)
	if won || err != nil {
		return err
	}
	var watched *vigil
	defer func() { watched.leave() }()
	for {
		look := cl.c.look(cl.ref, watched)
		before := watched
		watched = cl.c.follow(watched, look.holder, look.ttl)
		switch {
		case look.gone:
			return errClaimGone
		case look.won:
			return nil
		case look.take:
			won, err := cl.take(ctx, look.revision)
			if won && look.after.State == stateHeld {
				cl.c.log.Info("the lease of the holder has run out; taking over", "id", cl.ref.id, "holder", look.after.Node, "held", look.after.Token)
			}
			if won || err != nil {
				return err
			}
		}
		if watched != before {
			continue // it may have seen something
		}
		if err := look.wait(ctx); err != nil {
			return err
		}
	}
}

// outlook is what a claim that waits can see.
type outlook struct {
	gone     bool // its key was there and is not any more
	won      bool // the holder before has handed the id over to it
	take     bool // it may take the id, if the record is still of ...
	revision int64
	after    record // the last one of the id

	holder clientv3.LeaseID // whose lease is worth a look; zero: none
	ttl    time.Duration

	changed <-chan struct{} // closed when this is not true any more
	sighted <-chan struct{} // the same, of what was seen of the lease of the holder
	opens   time.Duration   // when it may take the id, if nothing changes; zero: not known
}

func (c *Cluster) look(at claimRef, watched *vigil) outlook {
	seen, sighted := watched.seen()
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.view.id(at.id)
	cl := c.claims[at.id][at]
	look := outlook{revision: e.revision, after: e.record, changed: e.changed, sighted: sighted}
	if e.created(at) == 0 {
		look.gone = c.view.revision >= cl.created
		return look
	}
	if e.record.of(at) && e.record.revision == e.revision {
		cl.hasWon(e.record)
		look.won = true
		return look
	}
	if !e.isNext(at) {
		return look
	}
	if e.known && e.record.State == stateHeld && c.sessions[e.record.at.lease] == nil {
		look.holder, look.ttl = e.record.at.lease, e.record.ttl
	}
	if watched != nil && watched.lease != e.record.at.lease {
		seen = nil
	}
	opens, ok := e.opensAt(seen)
	if !ok {
		return look
	}
	if look.take = now() >= opens; !look.take {
		look.opens = opens
	}
	return look
}

// wait waits until it is worth looking again.
func (o outlook) wait(ctx context.Context) error {
	var opens <-chan time.Time
	if o.opens != 0 {
		timer := time.NewTimer(o.opens - now())
		defer timer.Stop()
		opens = timer.C
	}
	select {
	case <-o.changed:
	case <-opens:
	case <-o.sighted:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}
