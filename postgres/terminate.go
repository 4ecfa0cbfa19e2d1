package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"highlander/internal/retry"
)

const (
	terminateSession = `select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and classid::bigint = $1 and objid::bigint = any($2) and objsubid = 1
		and granted and mode = 'ExclusiveLock' and database = (select oid from pg_database where datname = current_database()) and pid <> pg_backend_pid()`

	countLocks = `select count(*) from pg_locks where locktype = 'advisory' and classid::bigint = $1 and objid::bigint = any($2) and objsubid = 1
		and granted and mode = 'ExclusiveLock' and database = (select oid from pg_database where datname = current_database())`
)

// objects are the lower halves of the locks of a session.
func (c *config) objects(session int64) []int64 {
	return []int64{int64(uint32(c.workKey(session))), int64(uint32(c.ringKey(session)))}
}

// terminate ends what is left of a session, and waits a moment for it. Where that
// is not allowed, its ids are not to be had before it ends by itself.
func (s *session) terminate(ctx context.Context, session int64) error {
	ctx, cancel := context.WithTimeout(ctx, s.c.opTimeout())
	defer cancel()
	class, objects := int64(s.c.sessionClass()), s.c.objects(session)
	_, err := s.work.Exec(ctx, terminateSession, class, objects)
	if pgErr := (*pgconn.PgError)(nil); errors.As(err, &pgErr) && pgErr.Code == codeInsufficientPrivilege {
		s.c.log.Warn("may not end the session of another node; let all nodes use one role, or grant pg_signal_backend", "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("end session %d: %w", session, err)
	}
	for range 100 {
		var left int
		if err := s.work.QueryRow(ctx, countLocks, class, objects).Scan(&left); err != nil {
			return fmt.Errorf("end session %d: %w", session, err)
		}
		if left == 0 {
			return nil
		}
		if !retry.Sleep(ctx, 2*time.Millisecond) {
			return context.Cause(ctx)
		}
	}
	return nil
}
