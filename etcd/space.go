package etcd

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Prefix returns what the keys of the cluster begin with, before a slash.
func (c *Cluster) Prefix() string { return c.keys.prefix }

// DeleteAll deletes all keys of the cluster, tokens included: for what was made
// for a test or a benchmark, when no node of it is left.
func (c *Cluster) DeleteAll(ctx context.Context) error {
	err := c.insist(ctx, func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.Delete(ctx, c.keys.all(), clientv3.WithPrefix())
		return err
	})
	if err != nil {
		return fmt.Errorf("etcd: delete all keys of %s: %w", c.keys.prefix, err)
	}
	return nil
}
