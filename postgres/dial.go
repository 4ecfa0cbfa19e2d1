package postgres

import (
	"context"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

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
		if note.Channel == s.c.channel() { // and not what the session tells itself
			s.notes, s.notedAt = append(s.notes, note.Payload), s.clock()
		}
	}
	return pgx.ConnectConfig(ctx, conn)
}
