package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

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
