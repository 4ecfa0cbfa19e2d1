package kubernetes

import (
	"context"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DeleteAll deletes the Lease objects of all ids that begin with prefix, tokens
// included: for what was made for a test or a benchmark, when no node competes for
// them any more. It takes the right to delete Lease objects.
func (c *Cluster) DeleteAll(ctx context.Context, prefix string) error {
	listed, err := c.requests.list(ctx)
	if err != nil {
		return fmt.Errorf("kubernetes: delete all ids that begin with %q: %w", prefix, err)
	}
	for i := range listed.objects {
		o := &listed.objects[i]
		if r := readRecord(o); r.id == "" || !strings.HasPrefix(r.id, prefix) {
			continue
		}
		if err := c.delete(ctx, o); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("kubernetes: delete the Lease object %s: %w", o.Name, err)
		}
	}
	return nil
}

// delete says first that the lease is released: else nodes that wait for other ids
// put the object back, for the holder may be alive. What the holder has sent last
// may arrive meanwhile.
func (c *Cluster) delete(ctx context.Context, o *object) (err error) {
	for range writeTries {
		err = c.deleteOnce(ctx, o)
		if !apierrors.IsConflict(err) {
			return err
		}
		got, failed := c.requests.get(ctx, o.Name)
		if got == nil || failed != nil {
			return failed
		}
		o = got
	}
	return err
}

func (c *Cluster) deleteOnce(ctx context.Context, o *object) error {
	if r := readRecord(o); r.holder != "" {
		now := time.Now()
		claim{id: r.id, node: r.holder, token: r.token, ttl: r.duration, since: r.acquired}.isReleased(o, now)
		err := c.requests.do(ctx, func(ctx context.Context) error {
			_, err := c.requests.leases.Update(ctx, o, meta.UpdateOptions{})
			return err
		})
		if err != nil {
			return err
		}
	}
	return c.requests.do(ctx, func(ctx context.Context) error { return c.requests.leases.Delete(ctx, o.Name, meta.DeleteOptions{}) })
}
