package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"highlander"
	"highlander/internal/boottime"
	"highlander/internal/nodename"
)

// Cluster is a cluster of nodes that use one schema of one database. It connects
// with the first Acquire, by two connections of its own, however many ids there
// are; Lookup, Holders and Members use those, or one of their own before there
// has been an Acquire. All methods may be called concurrently.
type Cluster struct {
	c    *config
	node *node

	mu      sync.Mutex
	started bool
	closed  bool
	reader  *reader
}

var _ highlander.Cluster = (*Cluster)(nil)

// Open returns the cluster that a URL names:
//
//	postgres://USER:PASSWORD@HOST:PORT/DATABASE?name=N&ttl=12s&schema=S
//
// All other parameters go to pgx, such as sslmode and sslrootcert. Nothing is
// dialled: an error is about the URL or an option. An option overrides what the
// URL says.
func Open(url string, opts ...Option) (*Cluster, error) {
	conn, own, err := parseURL(url)
	if err != nil {
		return nil, fmt.Errorf("postgres: cluster URL: %w", err)
	}
	c, err := newConfig(conn, nil, append(own, opts...))
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	return newCluster(c), nil
}

// New returns a cluster at the database of a pool. It takes the settings of the
// pool, BeforeConnect included, but not its connections: the two of a node have
// to stay what they are for as long as it is there. It does not close the pool,
// nor need it to stay open.
func New(pool *pgxpool.Pool, opts ...Option) (*Cluster, error) {
	if pool == nil {
		return nil, errors.New("postgres: the pool is nil")
	}
	settings := pool.Config()
	c, err := newConfig(settings.ConnConfig, settings.BeforeConnect, opts)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	return newCluster(c), nil
}

func newCluster(c config) *Cluster {
	c.name = nodename.Join(c.name, nodename.NewIncarnation())
	c.log = c.log.With("node", c.name)
	return &Cluster{c: &c, node: newNode(&c, boottime.Now), reader: newReader(&c)}
}

// Node implements highlander.Cluster.
func (c *Cluster) Node() string { return c.c.name }

// CheckStopWithin returns an error, with the arithmetic, if a child that may take
// d to stop does not fit into the TTL. Acquire refuses such an
// AcquireOptions.StopWithin with the same words.
func (c *Cluster) CheckStopWithin(d time.Duration) error { return c.c.terms().CheckStopWithin(d) }

// Acquire implements highlander.Cluster. A server that cannot be reached, and
// rights that are missing, are waited for. What time cannot mend is an error: a
// proxy that pools by transaction, or an id whose hash is that of another.
func (c *Cluster) Acquire(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
	if err := c.c.terms().CheckAcquire(id, opts); err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := c.start(); err != nil {
		return nil, err
	}
	cl := c.node.newClaim(id, opts)
	if !c.node.do(func() { c.node.claim(cl) }) {
		return nil, highlander.ErrClosed
	}
	select {
	case <-cl.done:
	case <-ctx.Done():
		if c.node.giveUp(cl) {
			return nil, context.Cause(ctx)
		}
		<-cl.done // it was served at that moment
	}
	if cl.err != nil {
		return nil, cl.err
	}
	return cl.lease, nil
}

// start starts the node with the first Acquire.
func (c *Cluster) start() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return highlander.ErrClosed
	}
	if !c.started {
		c.started = true
		c.node.start()
	}
	return nil
}

// Close implements highlander.Cluster. If the server does not answer within a
// moment, others have to wait for the leases to run out.
func (c *Cluster) Close() error {
	c.mu.Lock()
	started := c.started
	c.closed = true
	c.mu.Unlock()
	if started {
		c.node.close()
	}
	c.reader.close()
	return nil
}
