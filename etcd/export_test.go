package etcd

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"highlander"
	"highlander/internal/lease"
)

// WithCloseTimeout sets how long Close tells etcd that the leases are released.
func WithCloseTimeout(d time.Duration) Option { return func(c *config) { c.closeTimeout = d } }

// Crash ends the node as SIGKILL ends a process: nothing is released.
func (c *Cluster) Crash() {
	c.stop() // before anything could be said
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	defer close(c.closing)
	c.cancel(errors.New("crashed"))
	for _, s := range c.sessions {
		s.book.Close()
	}
	c.tasks.Wait()
	c.conn.close()
}

// KnownWaiting returns how many claims wait for an id, as this node sees it, and
// whether it is up to date.
func (c *Cluster) KnownWaiting(ctx context.Context, id string) (int, error) {
	found, err := c.read(ctx, clientv3.OpGet(c.keys.all(), clientv3.WithPrefix()))
	if err != nil {
		return 0, err
	}
	seen := newView(c.keys, c.cfg.ttl)
	seen.load(found.kvs, found.revision, 0)
	e := seen.id(id)
	waiting := 0
	for at := range e.claims {
		if e.created(at) != 0 && !e.record.of(at) {
			waiting++
		}
	}
	return waiting, nil
}

// Lease returns the lease of the session, for tests that harm it.
func (c *Cluster) Lease() clientv3.LeaseID {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == nil {
		return 0
	}
	return c.current.id
}

// ClaimKeys returns the keys under which this process claims an id.
func (c *Cluster) ClaimKeys(id string) (keys []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for at := range c.claims[id] {
		keys = append(keys, c.keys.claim(at))
	}
	return keys
}

// RecordKey returns the key of the record of an id.
func (c *Cluster) RecordKey(id string) string { return c.keys.held(id) }

// Blind makes the node see nothing more of what the watch tells, as when a member
// hangs that does not end the watch.
func (c *Cluster) Blind(ids ...string) {
	for _, id := range ids {
		c.awaitSight(id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.view.keys = keys{"/nowhere"}
}

// awaitSight waits until the watch has told of the claim and the record of an id.
func (c *Cluster) awaitSight(id string) {
	for {
		c.mu.Lock()
		e := c.view.id(id)
		told, changed := len(e.claims) > 0 && e.revision != 0, e.changed
		c.mu.Unlock()
		if told {
			return
		}
		<-changed
	}
}

// AwaitSight waits until the watch has told of a revision, which is about an id.
func (c *Cluster) AwaitSight(id string, revision int64) {
	for {
		c.mu.Lock()
		told, changed := c.view.revision >= revision, c.view.id(id).changed
		c.mu.Unlock()
		if told {
			return
		}
		<-changed
	}
}

// AwaitRenewal returns when a renewal has succeeded that was sent after the call.
func (c *Cluster) AwaitRenewal(ctx context.Context) error {
	for called := now(); ; {
		s, err := c.session(ctx)
		if err != nil {
			return err
		}
		c.mu.Lock()
		sent, accepted := s.sent, s.accepted
		c.mu.Unlock()
		if sent > called {
			return nil
		}
		select {
		case <-accepted:
		case <-s.ctx.Done():
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// WinUnheard makes a claim win of which this process hears when it calls what is
// returned. That hands the lease out, and takes it for one that a renewal was
// under way for.
func (c *Cluster) WinUnheard(ctx context.Context, id string) (hear func() *lease.Lease, err error) {
	s, err := c.session(ctx)
	if err != nil {
		return nil, err
	}
	cl := c.newClaim(s, id, highlander.AcquireOptions{})
	key, held := cl.keys()
	r, sent := cl.newRecord(), now()
	a, err := c.txn(ctx, transaction{id: id, then: []clientv3.Op{clientv3.OpPut(key, r.value()), clientv3.OpPut(held, r.value())}})
	return func() *lease.Lease {
		cl.wrote(r, a.revision, sent)
		l, err := cl.grant()
		if err != nil {
			panic(err) // nobody has looked at the claim
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.renewLeases(s)
		return l
	}, err
}

// Now is the clock by which leases run out.
func Now() time.Duration { return now() }
