package kubernetes

import (
	"cmp"
	"fmt"
	"log/slog"
	"time"

	"highlander/internal/lease"
	"highlander/internal/nodename"
)

// DefaultTTL is how long a lease lasts without renewal, unless WithTTL says
// otherwise: as long as other programs on Kubernetes have it.
const DefaultTTL = 15 * time.Second

const (
	minTTL   = 2 * time.Second
	maxTTL   = 10 * time.Minute
	renewals = 5 // per TTL
)

// Option is a setting of New and Open.
type Option func(*config)

// WithName sets the first part of the node's name; it is the host name otherwise,
// which is the pod's name in a pod. A random second part makes each start another
// node.
func WithName(name string) Option { return func(c *config) { c.name = name } }

// WithTTL sets how long a lease lasts without renewal, in whole seconds from 2 s to
// 10 min; DefaultTTL by default. All nodes should have the same. The time that a
// child may take to stop must fit into it: see Cluster.CheckStopWithin.
func WithTTL(ttl time.Duration) Option { return func(c *config) { c.ttl = ttl } }

// WithLogger sets where the engine logs; it is slog.Default otherwise, and for nil.
func WithLogger(log *slog.Logger) Option { return func(c *config) { c.log = log } }

type config struct {
	name string
	ttl  time.Duration
	log  *slog.Logger
}

func newConfig(opts []Option) (config, error) {
	c := config{ttl: DefaultTTL}
	for _, set := range opts {
		set(&c)
	}
	c.log = cmp.Or(c.log, slog.Default())
	var err error
	if c.name, err = nodename.OrHost("name", c.name); err != nil {
		return c, err
	}
	return c, c.check()
}

func (c config) check() error {
	if c.ttl < minTTL || c.ttl > maxTTL || c.ttl%time.Second != 0 {
		return fmt.Errorf("ttl %v: whole seconds from %v to %v are allowed", c.ttl, minTTL, maxTTL)
	}
	return nil
}

func (c config) terms() lease.Terms { return lease.Terms{TTL: c.ttl, Every: c.ttl / renewals} }

// timeout is how long a single request may take.
func (c config) timeout() time.Duration { return max(c.ttl/renewals, time.Second/2) }
