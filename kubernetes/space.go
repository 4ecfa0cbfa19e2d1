package kubernetes

import (
	"context"
	"fmt"
	"strings"

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
		err := c.requests.do(ctx, func(ctx context.Context) error { return c.requests.leases.Delete(ctx, o.Name, meta.DeleteOptions{}) })
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("kubernetes: delete the Lease object %s: %w", o.Name, err)
		}
	}
	return nil
}
