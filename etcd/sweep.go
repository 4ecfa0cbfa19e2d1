package etcd

import (
	"context"
	"math/rand/v2"

	clientv3 "go.etcd.io/etcd/client/v3"

	"highlander"
	"highlander/internal/retry"
)

// sweep gives claims up that are of this process and of no call of Acquire: such
// as one whose request was given up and carried out later. The caller has the
// lock.
func (c *Cluster) sweep(e *entry) {
	for at := range e.claims {
		s := c.sessions[at.lease]
		if s == nil || c.claims[at.id][at] != nil || c.closed {
			continue
		}
		stray := c.addClaim(s, at, highlander.AcquireOptions{})
		c.spawn(func() { stray.giveUp(c.work) })
	}
}

// collect deletes the claims of a process that is no more. All others do, so it
// waits for a while of its own.
func (c *Cluster) collect(lease clientv3.LeaseID) {
	if !retry.Sleep(c.ctx, rand.N(c.cfg.ttl)) {
		return
	}
	err := c.try(c.ctx, c.requestTimeout(), func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(c.keys.node(lease)), "=", 0)).
			Then(clientv3.OpDelete(c.keys.claims(lease), clientv3.WithPrefix())).Commit()
		return err
	})
	if err != nil {
		c.log.Debug("the claims of a process that is no more were not deleted", "error", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.collecting, lease)
}
