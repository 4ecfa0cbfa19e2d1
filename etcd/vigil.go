package etcd

import (
	"context"
	"sync"
	"time"

	"highlander/internal/retry"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// vigil is a look, now and then, at the lease of a process that holds an id for
// which somebody waits here: one for all such ids. A nil *vigil is none.
type vigil struct {
	c     *Cluster
	lease clientv3.LeaseID
	users int // the lock of the cluster guards it
	end   context.CancelFunc

	mu       sync.Mutex
	sighting sighting
	changed  chan struct{} // closed when the sighting is final, or is not any more
}

// follow returns the vigil for the lease of a holder, and leaves the one of
// another.
func (c *Cluster) follow(old *vigil, holder clientv3.LeaseID, ttl time.Duration) *vigil {
	if old != nil && old.lease == holder {
		return old
	}
	old.leave()
	if holder == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.vigils[holder]
	if v == nil {
		ctx, end := context.WithCancel(c.ctx)
		v = &vigil{c: c, lease: holder, end: end, sighting: sighting{ttl: ttl}, changed: make(chan struct{})}
		c.vigils[holder] = v
		c.spawn(func() { v.keep(ctx) })
	}
	v.users++
	return v
}

func (v *vigil) leave() {
	if v == nil {
		return
	}
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	if v.users--; v.users == 0 {
		v.end()
		delete(v.c.vigils, v.lease)
	}
}

// seen returns what was seen so far, and what is closed when that is final, or
// not any more.
func (v *vigil) seen() (*sighting, <-chan struct{}) {
	if v == nil {
		return nil, nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	seen := v.sighting
	return &seen, v.changed
}

// keep looks at the lease until nobody waits any more.
func (v *vigil) keep(ctx context.Context) {
	for wait := newBackoff(); ctx.Err() == nil; {
		sent := now()
		var left int64
		err := v.c.try(ctx, v.sighting.ttl/4, func(ctx context.Context, client *clientv3.Client) error {
			resp, err := client.TimeToLive(ctx, v.lease)
			if err == nil {
				left = resp.TTL
			}
			return err
		})
		if err != nil {
			wait.Sleep(ctx)
			continue
		}
		wait.Reset()
		retry.Sleep(ctx, v.observe(sent, now(), left))
	}
}

// observe returns when to look again.
func (v *vigil) observe(sent, received time.Duration, left int64) time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	before := v.sighting.final
	v.sighting.observe(sent, received, left)
	if v.sighting.final != before {
		close(v.changed)
		v.changed = make(chan struct{})
	}
	return v.sighting.next()
}
