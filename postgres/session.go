package postgres

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
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

// simple runs statements by the simple protocol, all in one transaction.
func (s *session) simple(ctx context.Context, sql string) error {
	return s.work.PgConn().Exec(ctx, sql).Close()
}

func (s *session) listen(ctx context.Context) error {
	if err := s.simple(ctx, "listen "+s.c.channel()+"; listen "+s.ownChannel()); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return nil
}

// ownChannel is what this session alone listens on.
func (s *session) ownChannel() string {
	return fmt.Sprintf("%s_%d", s.c.channel(), s.work.PgConn().PID())
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
