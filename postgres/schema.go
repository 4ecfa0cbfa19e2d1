package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// tables is what is kept at the server.
//
// leases has a row for each id that was ever held, so that its tokens go on
// growing: released is the mark of a lease that is over, written by its holder
// or by whoever has seen that the holder's session is. nodes has a row for each
// session: a node has one at a time. Its beat is what renews the leases of the
// session. waiters is the queue of each id.
const tables = `create schema if not exists $schema;
create table if not exists $schema.leases (
	id       text primary key,
	key      bigint not null unique, -- of the advisory lock, a hash of the id
	token    bigint not null,        -- of the last lease
	session  bigint not null,        -- and its holder
	node     text not null,
	meta     text not null,
	since    timestamptz not null,
	ttl_ms   bigint not null,
	released boolean not null        -- it is over
);
create index if not exists leases_session on $schema.leases (session) where not released;
create table if not exists $schema.nodes (
	session    bigint generated always as identity primary key,
	name       text not null,
	ttl_ms     bigint not null,
	beat       bigint not null,      -- counts renewals
	beat_at    timestamptz not null, -- for people, and who shows it to them
	since      timestamptz not null,
	direct     boolean not null,     -- nothing between the node and the server could break both connections
	local      boolean not null,     -- and no network could forge their end
	work_pid   integer not null,     -- the backends of the two connections
	ring_pid   integer not null
) with (fillfactor = 50);
create table if not exists $schema.waiters (
	session bigint not null,
	seat    bigint not null,         -- one call of Acquire on that node
	id      text not null,
	place   bigint generated always as identity,
	primary key (session, seat)
);
create index if not exists waiters_id on $schema.waiters (id, place);
`

// Schema returns the SQL that makes the tables, for users that may not: let
// somebody who may run it, and grant the rights that docs/postgres.md lists. The
// first Acquire runs it where there are no tables.
func Schema(schema string) string { return inSchema(schema, tables) }

func inSchema(schema, sql string) string {
	return strings.ReplaceAll(sql, "$schema", pgx.Identifier{schema}.Sanitize())
}

// ensureSchema makes the tables if they are not there.
func (s *session) ensureSchema(ctx context.Context) error {
	there, err := s.schemaThere(ctx)
	if err != nil || there {
		return err
	}
	err = s.createSchema(ctx)
	if pgErr := (*pgconn.PgError)(nil); errors.As(err, &pgErr) {
		if pgErr.Code == codeInsufficientPrivilege {
			return fmt.Errorf("the tables are not there, and this user may not create them; let somebody who may run what \"highlander schema\" or postgres.Schema(%q) gives, then grant the rights in docs/postgres.md: %w", s.c.schema, err)
		}
		if there, again := s.schemaThere(ctx); again == nil && there {
			return nil // another node was faster
		}
	}
	if err != nil {
		return fmt.Errorf("create the tables: %w", err)
	}
	s.c.log.Info("created the tables", "schema", s.c.schema)
	return nil
}

// schemaIsGone reports whether somebody has dropped the tables.
func schemaIsGone(err error) bool {
	pgErr := (*pgconn.PgError)(nil)
	return errors.As(err, &pgErr) && (pgErr.Code == codeUndefinedTable || pgErr.Code == codeInvalidSchema)
}

func (s *session) schemaThere(ctx context.Context) (there bool, err error) {
	err = s.work.QueryRow(ctx, `select count(*) = 3 from pg_class c join pg_namespace n on n.oid = c.relnamespace
		where n.nspname = $1 and c.relname in ('leases', 'nodes', 'waiters') and c.relkind in ('r', 'p')`, s.c.schema).Scan(&there)
	if err != nil {
		return false, fmt.Errorf("look for the tables: %w", err)
	}
	return there, nil
}

// createSchema lets one node at a time do it: `if not exists` is no protection
// from somebody who does the same at that moment.
func (s *session) createSchema(ctx context.Context) error {
	sql := Schema(s.c.schema)
	var schemaThere bool
	if err := s.work.QueryRow(ctx, "select exists (select from pg_namespace where nspname = $1)", s.c.schema).Scan(&schemaThere); err != nil {
		return err
	}
	if schemaThere { // `create schema if not exists` needs the right to create one even then
		_, sql, _ = strings.Cut(sql, ";")
	}
	lock := fmt.Sprintf("select pg_advisory_xact_lock(%d);", s.c.key("schema", ""))
	return s.simple(ctx, "set local client_min_messages = warning;"+lock+sql)
}

// hash64 spreads names over the keys of advisory locks, which the whole database
// shares.
func hash64(name string) uint64 {
	sum := sha256.Sum256([]byte(name))
	return binary.BigEndian.Uint64(sum[:])
}

// key is the advisory lock of something in our schema.
func (c *config) key(kind, name string) int64 {
	return int64(c.hash(c.schema + "\x00" + kind + "\x00" + name))
}

// sessionClass is the upper half of the keys of the locks of sessions. The lower
// half is the number of the session, twice, and one more for its ring connection.
func (c *config) sessionClass() uint32 {
	return uint32(hash64(c.schema+"\x00session\x00") >> 32)
}

func (c *config) workKey(session int64) int64 {
	return int64(uint64(c.sessionClass())<<32 | uint64(uint32(session)<<1))
}

func (c *config) ringKey(session int64) int64 { return c.workKey(session) | 1 }

// channel is what the nodes listen on.
func (c *config) channel() string {
	return fmt.Sprintf("highlander_%016x", uint64(c.key("channel", "")))
}
