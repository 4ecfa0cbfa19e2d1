package postgres

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

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
