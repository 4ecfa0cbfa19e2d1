package highlander

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"highlander/internal/boottime"
)

// Singleton is the wrapper around a child on one node: it waits for the lease,
// runs the child, and stops it. It is a Service itself, so it goes wherever the
// child would have gone: into a supervisor, an errgroup, another Singleton.
type Singleton struct {
	cluster Cluster
	spec    ChildSpec
	options options
	invalid error // what is wrong with the arguments of Wrap; Serve returns it
	exit    func(code int)
	boot    func() time.Duration // the clock by which leases end

	mu       sync.Mutex // guards what Status shows; only Serve writes it
	state    State
	node     string
	held     *held // nil without a lease
	restarts int
}

// Wrap returns a Singleton that runs spec's child on one node of the cluster c.
// It acquires nothing and never fails: what is wrong with spec is returned by
// Serve.
func Wrap(c Cluster, spec ChildSpec, opts ...Option) *Singleton {
	s := &Singleton{cluster: c, exit: os.Exit, boot: boottime.Now}
	for _, opt := range opts {
		opt(&s.options)
	}
	s.spec, s.invalid = spec.withDefaults()
	if s.invalid == nil && c == nil {
		s.invalid = fmt.Errorf("highlander: child %q: the Cluster given to Wrap is nil; a singleton needs one", spec.ID)
	}
	return s
}

// Serve waits for the lease of the child's id and runs the child while it has
// it, again and again, until one of these:
//
//   - ctx ends: the child is told to stop with the cause ErrShutdown, waited
//     for, and then the lease is released. The error wraps ctx.Err().
//   - The child failed more often than spec allows: the lease is released, and
//     the error matches ErrTooManyRestarts and the last failure. Another node
//     takes over; to call Serve again is to stand at the end of the queue.
//   - The child is done, and WithReleaseWhenDone was given: the lease is
//     released. The error is the child's own, which may be nil.
//   - The cluster was closed (ErrClosed), or does not accept the id or the spec.
//
// When the lease is lost, the child is told to stop with the cause ErrConflict
// or ErrLeaseLost and waited for; then Serve waits for the lease again. That
// costs no restart.
//
// The order stop, wait, release holds without exception: Serve does not return
// before the child has, however long that takes, and the lease is not released
// before that. Nothing that Serve started outlives it.
//
// Serve may be called again after it has returned, and starts anew. While it
// runs, a second call is refused with an error.
func (s *Singleton) Serve(ctx context.Context) error {
	if s.invalid != nil {
		return s.invalid
	}
	if err := s.begin(); err != nil {
		return err
	}
	defer s.show(Idle, nil)
	return newLife(ctx, s).live()
}

// String returns the name of the singleton for logs, as supervisors show it.
func (s *Singleton) String() string { return fmt.Sprintf("singleton %q", s.spec.ID) }

// begin claims the singleton for one call of Serve.
func (s *Singleton) begin() error {
	node := s.cluster.Node()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != Idle {
		return fmt.Errorf("highlander: child %q: Serve is already running on this Singleton; Wrap the child again for another one", s.spec.ID)
	}
	s.state, s.node, s.restarts = Waiting, node, 0
	return nil
}
