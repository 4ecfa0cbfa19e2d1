package etcd

import (
	"context"
	"sync"
	"time"

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
	changed  chan struct{} // closed when the sighting is final
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

// seen returns what was seen so far.
func (v *vigil) seen() *sighting {
	if v == nil {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	seen := v.sighting
	return &seen
}

func (v *vigil) changes() <-chan struct{} {
	if v == nil {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.sighting.final {
		return nil // there is nothing more to come
	}
	return v.changed
}

// keep looks at the lease until nobody waits any more, or nothing more is to be
// learnt.
func (v *vigil) keep(ctx context.Context) {
	for {
		sent := now()
		var left int64
		err := v.c.try(ctx, v.sighting.ttl/4, func(ctx context.Context, client *clientv3.Client) error {
			resp, err := client.TimeToLive(ctx, v.lease)
			if err == nil {
				left = resp.TTL
			}
			return err
		})
		wait, final := v.observe(sent, now(), left, err)
		if final || !sleep(ctx, wait) {
			return
		}
	}
}

func (v *vigil) observe(sent, received time.Duration, left int64, err error) (wait time.Duration, final bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil {
		return v.sighting.quick(), false
	}
	v.sighting.observe(sent, received, left)
	if v.sighting.final {
		close(v.changed)
	}
	return v.sighting.next(), v.sighting.final
}
