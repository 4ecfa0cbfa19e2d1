package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// session is a node at the server, for as long as both its connections last. The
// goroutine of the node uses work for everything: it has the locks of the session
// and of the ids held, and listens. ring is blocked on the lock of the session
// before this one, in the goroutine watchRing.
type session struct {
	c      *config
	clock  func() time.Duration
	number int64
	server server
	wires  *wires
	work   *pgx.Conn
	ring   *pgx.Conn

	workPID, ringPID int32 // of the backends
	way              link

	strays    bool           // an attempt to take ids has failed: it may have left locks
	beat      int64          // as counted in the row
	notes     []string       // notifications that were not dealt with yet
	notedAt   time.Duration  // when the last one came
	warned    atomic.Bool    // the server has, about the last batch: its commit may not be on the synchronous standby
	turn      chan int64     // to the goroutine of the ring: the session to wait for
	turned    int64          // what it was told last
	ringed    sync.WaitGroup // that goroutine
	parting   atomic.Bool    // the server may be told that the session is over
	ringEnded chan struct{}  // closed when it has ended
	stop      func()         // ends it
	ringErr   error          // its end
	lost      error          // why the session has ended
}

// server is which server a session is at, and since when that runs.
type server struct {
	version int
	started time.Time
	history string // changes with a fail-over; empty where the server does not tell
}

// Codes of errors of PostgreSQL.
const (
	codeInsufficientPrivilege = "42501"
	codeAdminShutdown         = "57P01"
	codeLockNotAvailable      = "55P03"
	codeDeadlock              = "40P01"
	codeSerialization         = "40001"
	codeUndefinedTable        = "42P01"
	codeInvalidSchema         = "3F000"
	codeUniqueViolation       = "23505"
	codeQueryCanceled         = "57014"
	codeProtocolViolation     = "08P01"
)

// permanentError is what time does not mend: it is the error of every Acquire.
type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

// openSession connects, checks what it has connected to, and takes the locks of
// the session, in a row of nodes that others see when they are taken.
func (n *node) openSession(ctx context.Context) (_ *session, err error) {
	s := &session{c: n.c, clock: n.clock, wires: &wires{keep: n.c.keep}, turn: make(chan int64, 1)}
	defer func() {
		if err != nil {
			s.parting.Store(true)
			s.end()
			s.cut() // no lease depends on it yet
		}
	}()
	if s.work, err = s.dial(ctx); err != nil {
		return nil, err
	}
	if s.ring, err = s.dial(ctx); err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{s.refusePooler, s.settle, s.identify, s.ensureSchema, s.listen, s.join} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// dial opens one connection.
func (s *session) dial(ctx context.Context) (*pgx.Conn, error) {
	conn := s.c.conn.Copy()
	if s.c.before != nil {
		if err := s.c.before(ctx, conn); err != nil {
			return nil, fmt.Errorf("BeforeConnect of the pool: %w", err)
		}
	}
	s.c.shareTime(conn)
	conn.DialFunc = s.wires.dialer(conn.DialFunc)
	build := conn.BuildFrontend
	conn.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		return build(r, staying{w, &s.parting})
	}
	conn.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
	conn.StatementCacheCapacity = max(conn.StatementCacheCapacity, 64)
	conn.Tracer = nil
	if conn.ValidateConnect == nil {
		conn.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite // of many hosts, the primary
	}
	if conn.RuntimeParams["application_name"] == "" {
		conn.RuntimeParams["application_name"] = "highlander"
	}
	conn.OnNotice = func(from *pgconn.PgConn, notice *pgconn.Notice) {
		if s.work != nil && from == s.work.PgConn() && notice.SeverityUnlocalized == "WARNING" {
			s.warned.Store(true)
		}
	}
	conn.OnNotification = func(_ *pgconn.PgConn, note *pgconn.Notification) {
		s.notes, s.notedAt = append(s.notes, note.Payload), s.clock()
	}
	return pgx.ConnectConfig(ctx, conn)
}

// simple runs statements by the simple protocol, all in one transaction.
func (s *session) simple(ctx context.Context, sql string) error {
	return s.work.PgConn().Exec(ctx, sql).Close()
}

// errPooler is a proxy that gives a connection another session at each
// transaction.
var errPooler = permanentError{errors.New("the connection is pooled by transaction (pgbouncer with pool_mode = transaction or statement, or the like): the locks that leases are made of belong to a session, so use pool_mode = session or connect to the server itself")}

// refusePooler finds out whether our two connections keep their backends. With
// one of them in a transaction, a proxy has to give the other another one.
func (s *session) refusePooler(ctx context.Context) error {
	for range 2 {
		before, err := backend(ctx, s.work)
		if err != nil {
			return err
		}
		if err := s.ring.PgConn().Exec(ctx, "begin").Close(); err != nil {
			if pgErr := (*pgconn.PgError)(nil); errors.As(err, &pgErr) && pgErr.Code == codeProtocolViolation {
				return errPooler // it pools by statement: there are no transactions at all
			}
			return fmt.Errorf("look for a transaction pooler: %w", err)
		}
		other, err := backend(ctx, s.ring)
		if err != nil {
			return err
		}
		after, err := backend(ctx, s.work)
		if err != nil {
			return err
		}
		if err := s.ring.PgConn().Exec(ctx, "rollback").Close(); err != nil {
			return fmt.Errorf("look for a transaction pooler: %w", err)
		}
		if before == other || before != after {
			return errPooler
		}
		s.workPID, s.ringPID = before, other
	}
	return nil
}

// backend asks for the pid of the process that serves a connection now.
func backend(ctx context.Context, conn *pgx.Conn) (pid int32, err error) {
	results, err := conn.PgConn().Exec(ctx, "select pg_backend_pid()").ReadAll()
	if err == nil {
		_, err = fmt.Sscan(string(results[0].Rows[0][0]), &pid)
	}
	if err != nil {
		return 0, fmt.Errorf("look for a transaction pooler: %w", err)
	}
	return pid, nil
}

// settle sets what our sessions depend on, whatever the defaults of the user and
// the database are. Those that this version of the server does not know are left
// out. The keepalives see to it that the server does not end the session of a
// node that is silent before the node itself gives up, but then does.
func (s *session) settle(ctx context.Context) error {
	ttl := s.c.ttl
	seconds := func(d time.Duration) string { return strconv.Itoa(int((d + time.Second - 1) / time.Second)) }
	millis := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	for _, conn := range []*pgx.Conn{s.work, s.ring} {
		wait := s.c.opTimeout() / 2
		if conn == s.ring {
			wait = s.ringWait()
		}
		_, err := conn.Exec(ctx, `select set_config(name, value, false)
			from unnest($1::text[], $2::text[]) as wanted(name, value) join pg_settings using (name)`,
			[]string{
				"lock_timeout", "statement_timeout", "transaction_timeout", "idle_session_timeout", "idle_in_transaction_session_timeout",
				"default_transaction_isolation", "default_transaction_read_only", "default_transaction_deferrable", "stats_fetch_consistency", "jit",
				"tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout",
			},
			[]string{
				millis(wait), "0", "0", "0", "0",
				"read committed", "off", "off", "none", "off",
				seconds(ttl), seconds(ttl / beatShare), "3", millis(ttl + 3*ttl/beatShare),
			})
		if err != nil {
			return fmt.Errorf("set up the session: %w", err)
		}
		// A renewal that the standby has not seen is none.
		_, err = conn.Exec(ctx, `select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') in ('off', 'local')`)
		if err != nil {
			return fmt.Errorf("set up the session: %w", err)
		}
	}
	return nil
}

// ringWait is how long the ring's connection is blocked at a time: a statement
// that goes on for ever keeps VACUUM from its work.
func (s *session) ringWait() time.Duration { return min(3*time.Second, s.c.ttl/2) }

const oldestVersion = 140000

func (s *session) identify(ctx context.Context) error {
	var encoding string
	err := s.work.QueryRow(ctx, "select current_setting('server_version_num')::int, pg_postmaster_start_time(), current_setting('server_encoding')").
		Scan(&s.server.version, &s.server.started, &encoding)
	switch {
	case err != nil:
		return fmt.Errorf("ask for the version of the server: %w", err)
	case s.server.version < oldestVersion:
		return permanentError{fmt.Errorf("the server is PostgreSQL %d.%d; 14 or later is needed", s.server.version/10000, s.server.version%10000)}
	case encoding != "UTF8":
		return permanentError{fmt.Errorf("the encoding of the database is %s; UTF8 is needed", encoding)}
	}
	err = s.work.QueryRow(ctx, "select (select system_identifier from pg_control_system()) || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8)").Scan(&s.server.history)
	if pgErr := (*pgconn.PgError)(nil); err != nil && !errors.As(err, &pgErr) { // it may be none of ours to know
		return fmt.Errorf("ask for the timeline of the server: %w", err)
	}
	return nil
}

func (s *session) listen(ctx context.Context) error {
	if err := s.simple(ctx, "listen "+s.c.channel()); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return nil
}

// join takes the locks of the session and makes it known to the others.
func (s *session) join(ctx context.Context) error {
	if err := s.findLink(ctx); err != nil {
		return err
	}
	tx, err := s.work.Begin(ctx)
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	defer func() { _ = tx.Rollback(ctx) }() // after Commit it does nothing
	err = tx.QueryRow(ctx, inSchema(s.c.schema, `insert into $schema.nodes (name, ttl_ms, beat, beat_at, since, direct, local, work_pid, ring_pid)
		values ($1, $2, 0, clock_timestamp(), clock_timestamp(), $3, $4, $5, $6) returning session`),
		s.c.name, s.c.ttl.Milliseconds(), s.way.direct, s.way.local, s.workPID, s.ringPID).Scan(&s.number)
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	if err := lock(ctx, s.work, s.c.workKey(s.number)); err != nil {
		return err
	}
	if err := lock(ctx, s.ring, s.c.ringKey(s.number)); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "select pg_notify($1, 'ring')", s.c.channel()); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	return nil
}

// findLink finds out what the end of the connections may prove. Across a network the
// backend of the ring, which is blocked, has to look at its socket by itself: see
// wakeRing. Where it cannot, there is no proof.
func (s *session) findLink(ctx context.Context) error {
	work, ring := linkOf(ctx, s.work), linkOf(ctx, s.ring)
	s.way = link{direct: work.direct && ring.direct && !s.c.outlived, local: work.local && ring.local}
	if s.c.pretend != nil {
		s.way = *s.c.pretend
	}
	if s.way.local {
		return nil
	}
	_, err := s.ring.Exec(ctx, "select set_config('client_connection_check_interval', $1, false)", strconv.FormatInt(lookAtSocket.Milliseconds(), 10))
	if pgErr := (*pgconn.PgError)(nil); err != nil && !errors.As(err, &pgErr) {
		return fmt.Errorf("join: %w", err)
	}
	return nil
}

// lock takes the lock of a session, which nobody else has a reason to have.
func lock(ctx context.Context, conn *pgx.Conn, key int64) error {
	var got bool
	if err := conn.QueryRow(ctx, "select pg_try_advisory_lock($1)", key).Scan(&got); err != nil {
		return fmt.Errorf("lock the session: %w", err)
	}
	if !got {
		return fmt.Errorf("advisory lock %d is taken by somebody who is not of this cluster", key)
	}
	return nil
}

// end gives both connections up. Their sockets stay open until cut, and unless the
// session is over in order, the server hears nothing of it.
func (s *session) end() {
	if !s.parting.Load() {
		s.wires.mute()
	}
	if s.stop != nil {
		s.stop()
	}
	s.ringed.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	for _, conn := range []*pgx.Conn{s.work, s.ring} {
		if conn != nil {
			_ = conn.Close(ctx) // it is over, in order or not
		}
	}
}

// cut closes the sockets of a session that was ended, and waits for what pgx does
// in the background.
func (s *session) cut() {
	s.wires.close()
	for _, conn := range []*pgx.Conn{s.work, s.ring} {
		if conn != nil {
			<-conn.PgConn().CleanupDone()
		}
	}
}
