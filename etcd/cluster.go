package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"highlander"
	"highlander/internal/boottime"
	"highlander/internal/lease"
	"highlander/internal/nodename"
)

// Cluster is this process's part of the cluster. It implements
// highlander.Cluster; all methods may be called concurrently.
type Cluster struct {
	cfg   config
	name  string
	keys  keys
	terms lease.Terms // as configured
	log   *slog.Logger
	conn  *connection

	started sync.Once
	loaded  chan struct{} // closed when the view was loaded for the first time

	batches batches

	ctx    context.Context // ends with Close
	cancel context.CancelCauseFunc
	work   context.Context // for what Close still has to tell etcd
	stop   context.CancelFunc

	mu       sync.Mutex // guards what follows, and the fields of claims and sessions
	closed   bool
	closing  chan struct{} // closed when Close is done
	tasks    sync.WaitGroup
	view     *view
	sessions map[clientv3.LeaseID]*session // that have claims, or can
	current  *session                      // nil: there is none
	renewed  chan struct{}                 // closed when current is another
	claims   map[string]map[claimRef]*claim
	vigils   map[clientv3.LeaseID]*vigil
	number   uint64 // of the last claim

	collecting map[clientv3.LeaseID]bool
}

var _ highlander.Cluster = (*Cluster)(nil)

func newCluster(cfg config, conn *connection) *Cluster {
	c := &Cluster{
		cfg:      cfg,
		name:     nodename.Join(cfg.name, nodename.NewIncarnation()),
		keys:     keys{cfg.prefix},
		terms:    termsOf(cfg.ttl),
		conn:     conn,
		loaded:   make(chan struct{}),
		closing:  make(chan struct{}),
		view:     newView(keys{cfg.prefix}, cfg.ttl),
		sessions: map[clientv3.LeaseID]*session{},
		renewed:  make(chan struct{}),
		claims:   map[string]map[claimRef]*claim{},
		vigils:   map[clientv3.LeaseID]*vigil{},

		collecting: map[clientv3.LeaseID]bool{},
	}
	c.log = cfg.log.With("node", c.name)
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.work, c.stop = context.WithCancel(context.Background())
	return c
}

// termsOf returns the terms of leases that last for ttl.
func termsOf(ttl time.Duration) lease.Terms { return lease.Terms{TTL: ttl, Every: ttl / 4} }

// now is the clock by which leases run out.
func now() time.Duration { return boottime.Now() }

// Node implements highlander.Cluster: the name that was given, or that of the
// host, and a random number.
func (c *Cluster) Node() string { return c.name }

// CheckStopWithin returns an error, with the arithmetic, if a child that may take
// d to stop does not fit into the TTL. Acquire refuses it with the same words.
func (c *Cluster) CheckStopWithin(d time.Duration) error { return c.terms.CheckStopWithin(d) }

// Acquire implements highlander.Cluster. The lease runs out a TTL, less 2 % for
// clocks, after the sending of the last renewal that succeeded. It is lost, with
// highlander.ErrLeaseLost, StopWithin before that, or at once when its claim is
// deleted or the lease of this process revoked; with highlander.ErrConflict when
// another claim holds the id. A StopWithin that does not fit into the TTL is
// refused.
func (c *Cluster) Acquire(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
	if err := c.terms.CheckAcquire(id, opts); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if !c.begin() {
		return nil, fmt.Errorf("acquire %q: %w", id, highlander.ErrClosed)
	}
	defer c.tasks.Done()
	for wait := newBackoff(); ; wait.Sleep(ctx) {
		s, err := c.session(ctx)
		if err == nil {
			var l *lease.Lease
			if l, err = c.newClaim(s, id, opts).acquire(ctx); err == nil {
				return l, nil
			}
		}
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case c.ctx.Err() != nil:
			return nil, fmt.Errorf("acquire %q: %w", id, highlander.ErrClosed)
		}
		c.log.Debug("the claim was lost; making another", "id", id, "error", err)
	}
}

// begin registers a task that Close waits for, and starts what the first Acquire
// needs. It returns false if the cluster is closed.
func (c *Cluster) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.tasks.Add(1)
	c.started.Do(func() {
		c.tasks.Add(2)
		go c.keepSessions()
		go c.keepWatching()
	})
	return true
}

// spawn runs f, which Close waits for. The caller has the lock, or is a task
// itself.
func (c *Cluster) spawn(f func()) {
	c.tasks.Add(1)
	go func() {
		defer c.tasks.Done()
		f()
	}()
}

// Close implements highlander.Cluster: it ends the leases, and tells etcd so,
// which takes three seconds at most. It closes the client if Open has made it.
func (c *Cluster) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		<-c.closing
		return nil
	}
	c.closed = true
	c.cancel(highlander.ErrClosed)
	c.mu.Unlock()
	defer close(c.closing)
	limit := time.AfterFunc(c.cfg.closeTimeout, c.stop)
	defer limit.Stop()
	c.endSessions()
	c.tasks.Wait()
	c.stop()
	return c.conn.close()
}
