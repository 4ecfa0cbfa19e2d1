package highlander

import (
	"context"
	"time"
)

// LeaseInfo is what a child may know of the lease it runs under.
type LeaseInfo struct {
	ID    string
	Node  string    // Cluster.Node of this node
	Since time.Time // when this node got the lease

	lease Lease
}

// Token returns the fencing token now. Send it with every write to a system
// that keeps the largest token seen and refuses smaller ones: then a child that
// was frozen while another took over does no harm when it wakes. It may grow
// while the lease lasts, so ask for it each time. It may be called at any time
// and concurrently.
func (i LeaseInfo) Token() uint64 {
	if i.lease == nil {
		return 0
	}
	return i.lease.Token()
}

// Expires returns the moment from which on another node may start, as far as
// renewals are known now: what must not overlap with its successor has to be over
// by then. It is zero while the engine knows of no such moment. It moves on as
// the lease is renewed, so ask for it each time, and at once turn it into what is
// left: a time.Time that is kept does not see the machine sleep. It may be
// called at any time and concurrently.
func (i LeaseInfo) Expires() time.Time {
	if i.lease == nil {
		return time.Time{}
	}
	return i.lease.Expires()
}

type leaseInfoKey struct{}

// FromContext returns the lease that the child runs under, given the context
// of its Serve or one derived from it. It reports false outside of a child. In
// a Singleton within another's child it is the inner one's.
func FromContext(ctx context.Context) (LeaseInfo, bool) {
	info, ok := ctx.Value(leaseInfoKey{}).(LeaseInfo)
	return info, ok
}
