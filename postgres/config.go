package postgres

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"highlander/internal/clusterurl"
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

// parseURL takes what is ours out of a URL and gives the rest to pgx.
func parseURL(raw string) (*pgx.ConnConfig, []Option, error) {
	u, err := url.Parse(raw)
	if passwordAstray(raw, err != nil) {
		return nil, nil, errors.New("'@' is not allowed after the host; in a user or a password '/', '?', '#' and '@' are written %2F, %3F, %23 and %40")
	}
	if err != nil {
		if detail := (*url.Error)(nil); errors.As(err, &detail) {
			err = detail.Err // without the URL, which may have a password in it
		}
		return nil, nil, err
	}
	switch {
	case u.Scheme != "postgres" && u.Scheme != "postgresql":
		return nil, nil, fmt.Errorf("scheme %q; postgres://USER@HOST:PORT/DATABASE is allowed", u.Scheme)
	case u.Opaque != "":
		return nil, nil, errors.New("the // after postgres: is missing; postgres://USER@HOST:PORT/DATABASE is allowed")
	case u.Fragment != "" || strings.HasSuffix(raw, "#"):
		return nil, nil, errors.New("'#' is not allowed (in a name or a value it is written %23)")
	case u.Host == "" && u.Path == "":
		u.Path = "/" // pgx needs it to see a URL
	}
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, nil, fmt.Errorf("parameters: %w", err)
	}
	opts, err := ownParams(values)
	if err != nil {
		return nil, nil, err
	}
	if err := checkPgxParams(values); err != nil {
		return nil, nil, err
	}
	u.RawQuery = values.Encode()
	conn, err := pgx.ParseConfig(u.String())
	if err != nil {
		return nil, nil, withoutURL(err)
	}
	return conn, opts, nil
}

// pgxValues are the values of pgx's parameters where there are few. What pgx says
// against another one shows neither it nor these.
var pgxValues = map[string][]string{
	"sslmode":              {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"},
	"target_session_attrs": {"any", "read-write", "read-only", "primary", "standby", "prefer-standby"},
}

// checkPgxParams says what is allowed, where pgx does not.
func checkPgxParams(values url.Values) error {
	for _, name := range slices.Sorted(maps.Keys(pgxValues)) {
		if value := values.Get(name); values.Has(name) && !slices.Contains(pgxValues[name], value) {
			return fmt.Errorf("%s=%s: %s are allowed", name, value, strings.Join(pgxValues[name], ", "))
		}
	}
	if value := values.Get("connect_timeout"); values.Has("connect_timeout") {
		if n, err := strconv.Atoi(value); err != nil || n < 0 {
			return fmt.Errorf("connect_timeout=%s: a whole number of seconds is allowed", value)
		}
	}
	if file := values.Get("sslrootcert"); file != "" && file != "system" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("sslrootcert: %w", err)
		}
		if !x509.NewCertPool().AppendCertsFromPEM(pem) {
			return fmt.Errorf("sslrootcert=%s: there is no certificate (PEM) in it", file)
		}
	}
	return nil
}

// passwordAstray says whether a user or a password in a URL has an end where
// nobody meant one: at a '/', '?' or '#' of its own. The rest of it would be
// shown as a port, a database or the name of a parameter.
func passwordAstray(raw string, malformed bool) bool {
	_, rest, _ := strings.Cut(raw, "://")
	after := rest[max(0, strings.IndexAny(rest, "/?#")):]
	path, query, _ := strings.Cut(after, "?")
	param, _, _ := strings.Cut(query, "=")
	return strings.Contains(path+param, "@") || malformed && strings.Contains(after, "@")
}

// withoutURL returns what pgx says against a URL without the URL, which may have
// a password in it. What is left names the parameter.
func withoutURL(err error) error {
	if detail := (*pgconn.ParseConfigError)(nil); errors.As(err, &detail) {
		if _, what, ok := strings.Cut(err.Error(), "`: "); ok {
			what = strings.Replace(what, "invalid port", "invalid port; 1 to 65535 are allowed", 1)
			return errors.New(what)
		}
	}
	return err
}

// ownParams takes our parameters out of values.
func ownParams(values url.Values) (opts []Option, err error) {
	var own config
	err = clusterurl.TakeParams(values, []clusterurl.Param{
		clusterurl.String("name", &own.name),
		clusterurl.Duration("ttl", &own.ttl, fmt.Sprintf("a time from %v to %v, such as 12s, is allowed", minTTL, maxTTL)),
		clusterurl.String("schema", &own.schema),
	})
	if err != nil {
		return nil, err
	}
	if own.name != "" {
		opts = append(opts, WithName(own.name))
	}
	if own.ttl != 0 {
		opts = append(opts, WithTTL(own.ttl))
	}
	if own.schema != "" {
		opts = append(opts, WithSchema(own.schema))
	}
	return opts, nil
}
