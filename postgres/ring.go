package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// The sessions form a ring, in the order of their numbers. In each, one connection
// is blocked on the lock that the working connection of the session before it has.
// So when a process is killed, exactly one other wakes up.

// gone is the end of the working connection of a session, as the ring has seen it.
type gone struct {
	session int64
	at      time.Duration
}

// waitForLock waits until nobody has a lock any more, or lock_timeout has been over
// so many times. An error would be one in the log of the server each time: so it is
// caught there. Each time is a transaction, and nothing is sent in between: what is
// sent may be what ends the connection (death.go).
const waitForLock = `do $$ begin
	perform set_config('highlander.got', '', false);
	for i in 1..%d loop
		commit;
		begin
			perform pg_advisory_lock_shared(%d);
			perform set_config('highlander.got', 'it', false);
			return;
		exception
			when lock_not_available then null;
			when query_canceled then return;
		end;
	end loop;
end $$`

// rounds is how many times. Silence is for the proof of death; where the link allows
// none, it would only have a proxy end a connection that is idle for its time-out.
func (l link) rounds() int {
	if l.direct {
		return 200 // ten minutes, as a rule
	}
	return 5
}

// watchRing starts the goroutine that has the ring's connection.
func (s *session) watchRing(ctx context.Context, n *node) {
	ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx)) // it is stopped last, so that a crash is one
	s.ringEnded = make(chan struct{})
	s.ringed.Go(func() {
		defer close(s.ringEnded)
		err := s.waitForEnds(ctx, n)
		n.do(func() { s.ringErr = err })
	})
}

// waitForEnds waits for the end of one session after the other.
func (s *session) waitForEnds(ctx context.Context, n *node) error {
	for session := int64(0); ; {
		if session == 0 {
			if session = s.nextTurn(ctx); session == 0 {
				return context.Cause(ctx)
			}
		}
		ended, err := s.waitForEnd(ctx, session)
		switch {
		case err != nil:
			return fmt.Errorf("wait for the session before: %w", err)
		case ended:
			end := gone{session, n.clock()}
			n.do(func() { n.gone = append(n.gone, end) })
			session = 0
		default:
			select {
			case session = <-s.turn:
			default:
			}
		}
	}
}

// nextTurn waits to be told whom to wait for; zero when the session has ended.
func (s *session) nextTurn(ctx context.Context) int64 {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		select {
		case session, open := <-s.turn:
			if session != 0 || !open {
				return session
			}
		case <-ctx.Done():
			return 0
		}
	}
}

// waitForEnd waits for the end of a session for a while.
func (s *session) waitForEnd(ctx context.Context, session int64) (ended bool, err error) {
	rounds := s.way.rounds()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Duration(rounds)*s.ringWait()+s.c.opTimeout()) // a busy server is late in each
	defer cancel()
	conn, key := s.ring.PgConn(), s.c.workKey(session)
	if err := conn.Exec(ctx, fmt.Sprintf(waitForLock, rounds, key)).Close(); err != nil {
		return false, unlessBrokenOff(err)
	}
	results, err := conn.Exec(ctx, "select current_setting('highlander.got')").ReadAll()
	if err != nil {
		return false, unlessBrokenOff(err)
	}
	if got := results[0]; len(got.Rows) == 0 || len(got.Rows[0][0]) == 0 {
		return false, nil
	}
	return true, unlessBrokenOff(conn.Exec(ctx, fmt.Sprintf("select pg_advisory_unlock_shared(%d)", key)).Close())
}

// unlessBrokenOff forgives what turnRing does to whatever runs. A lock that is kept
// by that, of a session that has ended, does no harm.
func unlessBrokenOff(err error) error {
	if pgErr := (*pgconn.PgError)(nil); errors.As(err, &pgErr) && pgErr.Code == codeQueryCanceled {
		return nil
	}
	return err
}

// turnRing tells the ring whom to wait for. What it waits for now is broken off:
// again and again, because between two statements that goes unheard.
func (n *node) turnRing(ctx context.Context, s *session, to int64) error {
	if to == s.turned {
		return nil
	}
	s.turned = to
	select {
	case <-s.turn: // what it was told before and has not heard
	default:
	}
	s.turn <- to
	ctx, cancel := context.WithTimeout(ctx, n.c.opTimeout())
	defer cancel()
	for len(s.turn) > 0 {
		if _, err := s.work.Exec(ctx, "select pg_cancel_backend($1)", s.ringPID); err != nil {
			return fmt.Errorf("turn the ring: %w", err)
		}
		select {
		case <-s.ringEnded:
			return nil // serve hears of it
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("turn the ring: %w", context.Cause(ctx))
		}
	}
	return nil
}
