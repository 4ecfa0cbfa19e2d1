package highlander

import (
	"context"
	"fmt"
	"time"
)

// Cluster is where leases come from: one of the engines, or the in-memory one
// of package highlandertest. One Cluster per process serves all its ids. All
// methods may be called concurrently.
type Cluster interface {
	// Node returns the name of this node, unique per start, as Holder.Node
	// shows it to others.
	Node() string

	// Acquire blocks until this call holds the lease of id, ctx ends
	// (context.Cause of it is returned), or the cluster is closed
	// (ErrClosed). Two calls for the same id compete, also within one
	// process. Waiters are served first come, first served where the engine
	// can tell. An error other than those is final for this call: a bad id
	// (ErrInvalidID) or an option the engine refuses; what can pass by
	// itself, such as a server that does not answer, is waited for.
	Acquire(ctx context.Context, id string, opts AcquireOptions) (Lease, error)

	// Lookup returns who holds id now, as far as this node knows, or
	// ErrNotHeld.
	Lookup(ctx context.Context, id string) (Holder, error)

	// Holders returns all holders this node knows of, sorted by id.
	Holders(ctx context.Context) ([]Holder, error)

	// Close ends every lease of this node and every waiting Acquire, then
	// leaves the cluster. It is idempotent. Stop the children first, with the
	// context of their Serve: Close does not wait for them.
	Close() error
}

// AcquireOptions go with one Acquire.
type AcquireOptions struct {
	// Meta is shown to others in Holder.Meta; at most MaxMetaLen bytes of
	// UTF-8 without control characters.
	Meta string

	// StopWithin is how long before others may start the holder is told to
	// stop: Lease.Done closes at least this long before Lease.Expires, on
	// engines whose leases run out. Not negative.
	StopWithin time.Duration
}

// Validate reports what is wrong with the options whatever the engine, in one
// line; nil if nothing is. Engines call it in Acquire, after ValidateID.
func (o AcquireOptions) Validate() error {
	if err := validateMeta(o.Meta); err != nil {
		return fmt.Errorf("AcquireOptions.Meta: %w", err)
	}
	if o.StopWithin < 0 {
		return fmt.Errorf("AcquireOptions.StopWithin is %v; it must not be negative", o.StopWithin)
	}
	return nil
}

// Holder is who has the lease of an id.
type Holder struct {
	ID    string
	Node  string    // Cluster.Node of the holder
	Meta  string    // ChildSpec.Meta of the holder
	Token uint64    // fencing token
	Since time.Time // when the lease was won, by the holder's or the server's clock
}

// Lease is the exclusive right to run an id, until it is released or lost. All
// methods may be called concurrently.
//
// A Lease may have one more method, AfterFunc(f func()) (stop func() bool): what
// context.AfterFunc is for the end of a context, for Done. That spares each
// Singleton that runs its child the goroutine that waits for Done.
type Lease interface {
	// Token returns the fencing token. It is larger than that of every
	// earlier lease of the id. After a healed netsplit the engine may raise it
	// while the lease lasts, so ask for it when it is used.
	Token() uint64

	// Done is closed when the lease is lost or about to run out, and after
	// Release.
	Done() <-chan struct{}

	// Err says why Done is closed: ErrConflict or ErrLeaseLost, or ErrClosed
	// after Release or Cluster.Close. It is nil before.
	Err() error

	// Expires returns the moment from which on another node may start, as far
	// as renewals are known now; zero while the engine knows of no such time.
	// It stands still once Done is closed.
	Expires() time.Time

	// Release gives the lease up, so that the next waiter gets it at once. It
	// is idempotent. The caller's child must have returned. An error means
	// that others may have to wait for the lease to run out; it is released
	// here all the same.
	Release(ctx context.Context) error
}
