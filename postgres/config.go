package postgres

import (
	"cmp"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"highlander/internal/lease"
	"highlander/internal/nodename"
)

const (
	// DefaultTTL is how long a lease lasts without renewal, unless WithTTL or
	// ttl= says otherwise: highlander.DefaultShutdown fits into it.
	DefaultTTL = 12 * time.Second

	// DefaultSchema is where the tables are, unless WithSchema or schema= says
	// otherwise.
	DefaultSchema = "highlander"

	minTTL       = time.Second
	maxTTL       = 2 * time.Minute // below the keepalive of the sockets here: see wire
	maxSchemaLen = 63              // of an identifier of PostgreSQL

	beatShare = 4 // a lease is renewed every TTL/4

	longestConnect = 2 * time.Second // to one of several hosts
)

// Option is a setting of a Cluster.
type Option func(*config)

// config is what a Cluster is made of.
type config struct {
	name   string
	ttl    time.Duration
	schema string
	log    *slog.Logger

	conn   *pgx.ConnConfig
	before beforeConnect
	keep   func(net.Conn) (let func(), err error)

	outlived bool                // by something that matters: see WithoutProof
	hash     func(string) uint64 // for tests: in place of hash64
	pretend  *link               // for tests: what is said of the way to the server
}

// WithName sets the first part of the node's name; the host name by default.
// Nodes may share it: the second part is random.
func WithName(name string) Option { return func(c *config) { c.name = name } }

// WithTTL sets how long a lease lasts without renewal, 1 s to 2 min; DefaultTTL by
// default. Nodes may differ in it. The time that a child may take to stop must fit
// into it: see Cluster.CheckStopWithin.
func WithTTL(ttl time.Duration) Option { return func(c *config) { c.ttl = ttl } }

// WithSchema sets the schema of the tables; DefaultSchema by default. Nodes of one
// cluster share it; clusters in other schemas are strangers.
func WithSchema(schema string) Option { return func(c *config) { c.schema = schema } }

// WithLogger sets where outages and take-overs are logged; slog.Default() by
// default.
func WithLogger(log *slog.Logger) Option { return func(c *config) { c.log = log } }

// WithoutProof says that something outlives this process for a moment, such as a
// command that somebody else kills then, and cannot be given the connections
// (WithKeeper). So their end is no proof that all is over: after a kill -9 others
// wait for the leases to run out.
func WithoutProof() Option { return func(c *config) { c.outlived = true } }

// WithKeeper hands both connections to keep as soon as they are dialled: something
// that outlives this process, such as the guard of highlander run, and has them
// open until all that the process ran is gone. The end of both says that the node
// is dead, and others start at once. let is called before a connection is closed.
func WithKeeper(keep func(net.Conn) (let func(), err error)) Option {
	return func(c *config) { c.keep = keep }
}

func newConfig(conn *pgx.ConnConfig, before beforeConnect, opts []Option) (config, error) {
	c := config{ttl: DefaultTTL, schema: DefaultSchema, conn: conn, before: before, hash: hash64}
	for _, opt := range opts {
		opt(&c)
	}
	var err error
	c.name, err = nodename.OrHost("name", c.name)
	c.log = cmp.Or(c.log, slog.Default()).With("engine", "postgres")
	return c, cmp.Or(err, checkTTL(c.ttl), checkSchema(c.schema))
}

func checkTTL(ttl time.Duration) error {
	if ttl < minTTL || ttl > maxTTL {
		return fmt.Errorf("ttl %v: a time from %v to %v, such as 12s, is allowed", ttl, minTTL, maxTTL)
	}
	return nil
}

func checkSchema(schema string) error {
	switch {
	case schema == "" || len(schema) > maxSchemaLen:
		return fmt.Errorf("schema %q has %d bytes; 1 to %d are allowed", schema, len(schema), maxSchemaLen)
	case !utf8.ValidString(schema) || strings.ContainsFunc(schema, unicode.IsControl):
		return fmt.Errorf("schema %q: UTF-8 without control characters is allowed", schema)
	case strings.HasPrefix(schema, "pg_"):
		return fmt.Errorf("schema %q: names that begin with pg_ are PostgreSQL's own", schema)
	}
	return nil
}

// terms are how long leases last here.
func (c config) terms() lease.Terms { return lease.Terms{TTL: c.ttl, Every: c.ttl / beatShare} }

// opTimeout is how long the server may take to answer before the connection is
// taken for dead. Nothing is lost with it: see session.adopt.
func (c config) opTimeout() time.Duration { return max(c.ttl/beatShare, 2*time.Second) }

// shareTime gives each of several hosts its part of the time, so that one that is
// silent, as a primary that hangs, does not take that of the others. pgx asks one
// after the other, and a session connects twice.
func (c config) shareTime(conn *pgx.ConnConfig) {
	hosts := map[string]bool{net.JoinHostPort(conn.Host, strconv.Itoa(int(conn.Port))): true}
	for _, other := range conn.Fallbacks { // the same one without TLS, too
		hosts[net.JoinHostPort(other.Host, strconv.Itoa(int(other.Port)))] = true
	}
	share := min(c.opTimeout()/time.Duration(len(hosts)), longestConnect)
	if len(hosts) > 1 && (conn.ConnectTimeout == 0 || conn.ConnectTimeout > share) {
		conn.ConnectTimeout = share
	}
}
