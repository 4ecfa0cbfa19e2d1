package etcd

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"highlander/internal/nodename"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// DefaultTTL is how long a lease lasts without renewal, unless WithTTL or
	// ttl= says otherwise: highlander.DefaultShutdown fits into it.
	DefaultTTL = 12 * time.Second

	// DefaultPrefix is what all keys begin with, unless WithPrefix or the URL
	// says otherwise.
	DefaultPrefix = "/highlander"

	minTTL       = time.Second
	maxTTL       = time.Hour
	maxPrefixLen = 128

	closeTimeout = 3 * time.Second
)

// Option is a setting for New and Open.
type Option func(*config)

type config struct {
	name   string
	ttl    time.Duration
	prefix string
	log    *slog.Logger

	closeTimeout time.Duration // how long Close tells etcd that the leases are released
}

// WithName sets the first part of the node's name; the host name by default.
func WithName(name string) Option { return func(c *config) { c.name = name } }

// WithTTL sets how long a lease lasts without renewal, in whole seconds from 1 s to
// 1 h; DefaultTTL by default. etcd grants no less than 1.5 times its election
// timeout. The time that a child may take to stop must fit into it: see
// Cluster.CheckStopWithin.
func WithTTL(ttl time.Duration) Option { return func(c *config) { c.ttl = ttl } }

// WithPrefix sets what all keys of the cluster begin with; DefaultPrefix by
// default: at most 128 bytes, and no slash at the end. Clusters with different
// prefixes know nothing of each other.
func WithPrefix(prefix string) Option { return func(c *config) { c.prefix = prefix } }

// WithLogger sets the logger; slog.Default by default.
func WithLogger(log *slog.Logger) Option { return func(c *config) { c.log = log } }

// New returns a cluster on a client of the program, which Close leaves open. It
// does not connect to anything: that begins with the first Acquire.
//
// The client decides how fast the loss of a connection is noticed: set
// DialKeepAliveTime and DialKeepAliveTimeout, and give all members as Endpoints,
// so that a member that hangs is not asked for long.
func New(client *clientv3.Client, opts ...Option) (*Cluster, error) {
	if client == nil {
		return nil, errors.New("etcd: the client is nil")
	}
	cfg, err := newConfig(opts)
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	return newCluster(cfg, newConnection(client, nil)), nil
}

func newConfig(opts []Option) (config, error) {
	cfg := config{ttl: DefaultTTL, prefix: DefaultPrefix, closeTimeout: closeTimeout}
	for _, opt := range opts {
		opt(&cfg)
	}
	if cfg.log == nil {
		cfg.log = slog.Default()
	}
	var err error
	cfg.name, err = nodename.OrHost("name", cfg.name)
	return cfg, cmp.Or(err, checkTTL(cfg.ttl), checkPrefix(cfg.prefix))
}

func checkTTL(ttl time.Duration) error {
	if ttl < minTTL || ttl > maxTTL || ttl%time.Second != 0 {
		return fmt.Errorf("TTL %v: whole seconds from %v to %v are allowed", ttl, minTTL, maxTTL)
	}
	return nil
}

func checkPrefix(prefix string) error {
	switch {
	case prefix == "" || strings.HasSuffix(prefix, "/"):
		return fmt.Errorf("prefix %q: it must not be empty or end with a slash, such as %s", prefix, DefaultPrefix)
	case len(prefix) > maxPrefixLen:
		return fmt.Errorf("prefix has %d bytes; at most %d are allowed", len(prefix), maxPrefixLen)
	}
	return nil
}
