package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// server is which server a session is at, and since when that runs.
type server struct {
	version int
	started time.Time
	history string // changes with a fail-over; empty where the server does not tell
}

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
