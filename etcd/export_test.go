package etcd

import (
	"context"
	"errors"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Crash ends the node as SIGKILL ends a process: nothing is released.
func (c *Cluster) Crash() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	defer close(c.closing)
	c.stop() // before anything could be said
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
