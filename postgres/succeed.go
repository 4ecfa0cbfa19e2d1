package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"highlander"
)

// A session may end while the leases of the node have time left: the network
// broke a connection, the server was restarted. The next session then goes on with
// what the last one had, if nobody else has come by it.

const (
	lockOld = `select id, key, token, node, released, ttl_ms from $schema.leases where id = any($1) or session = any($2) and not released order by id for update`

	// putBackOld puts back rows that somebody has deleted in the meantime: the
	// child of the lease may run, and others have to wait for it.
	putBackOld = `insert into $schema.leases as l (id, key, token, session, node, meta, since, ttl_ms, released)
		select id, key, token, session, $1, meta, since, $2, false
		from unnest($3::text[], $4::bigint[], $5::bigint[], $6::text[], $7::timestamptz[], $8::bigint[]) as held(id, key, token, meta, since, session)
		on conflict (id) do update set token = excluded.token, session = excluded.session, node = excluded.node, meta = excluded.meta,
			since = excluded.since, ttl_ms = excluded.ttl_ms, released = false
		where l.released and l.token < excluded.token`

	adoptLeases = `with locked as materialized (
			select l.id, pg_try_advisory_lock(l.key) as got from $schema.leases l join unnest($1::text[], $2::bigint[]) as held(id, token) using (id, token)
			where not l.released and l.session = any($3)
		)
		update $schema.leases l set session = $4, ttl_ms = $5 from locked where l.id = locked.id and locked.got returning l.id, l.token`

	// Nobody was given these: how the attempt to take them ended was not known.
	freeOld = `update $schema.leases set released = true where session = any($1) and not released and id <> all($2)`

	moveWaiters = `update $schema.waiters set session = $1 where session = any($2) and seat = any($3) returning seat`

	dropOldWaiters = `delete from $schema.waiters where session = any($1)`

	dropOldNodes = `delete from $schema.nodes where session = any($1)`
)

// succeed lets a session go on with what those before it had. It was opened by a
// request sent at that time.
func (n *node) succeed(ctx context.Context, s *session, sent time.Duration) error {
	n.until = n.c.terms().Until(sent)
	if len(n.old) == 0 {
		return nil
	}
	n.respectHarm(s)
	var numbers []int64
	for _, old := range n.old {
		numbers = append(numbers, old.number)
		if err := s.terminate(ctx, old.number); err != nil {
			return err
		}
	}
	sent = n.clock()
	var all, live []*hold
	for _, h := range n.holds {
		if h.giveBack || h.session == 0 {
			continue
		}
		all = append(all, h)
		if h.live() {
			live = append(live, h)
		}
	}
	ids, _, tokens, _, _ := columns(live)
	allIDs, keys, allTokens, metas, since := columns(all)
	var sessions []int64
	for _, h := range all {
		sessions = append(sessions, h.session)
	}
	var before, ours []row
	var seats []int64
	b := s.newBatch()
	b.add(renew, s.number, n.c.ttl.Milliseconds()) // or others, who have seen the first beat, would count from that
	collect(b.add(lockOld, allIDs, numbers), &before, scanRow)
	b.add(putBackOld, n.c.name, n.c.ttl.Milliseconds(), allIDs, keys, allTokens, metas, since, sessions)
	collect(b.add(adoptLeases, ids, tokens, numbers, s.number, n.c.ttl.Milliseconds()), &ours, func(rows pgx.Rows, r *row) error { return rows.Scan(&r.id, &r.token) })
	b.add(freeOld, numbers, keysOf(n.holds))
	collect(b.add(moveWaiters, s.number, numbers, keysOf(n.claims)), &seats, func(rows pgx.Rows, seat *int64) error { return rows.Scan(seat) })
	b.add(dropOldWaiters, numbers)
	b.add(dropOldNodes, numbers)
	b.add("select pg_notify($1, 'ring')", n.c.channel())
	if err := b.send(ctx); err != nil {
		return fmt.Errorf("go on with what the last session had: %w", err)
	}
	if s.warned.Load() {
		return errors.New("go on with what the last session had: the server warned about it, so it does not count: it may not be on the standby")
	}
	n.succeeded(s, sent, live, ours, before, seats)
	return nil
}

// succeeded takes in what a session has of those before it.
func (n *node) succeeded(s *session, sent time.Duration, live []*hold, ours, before []row, seats []int64) {
	for _, old := range n.old {
		old.cut()
	}
	n.old = nil
	n.loseAllBut(live, ours, before)
	for _, r := range ours {
		h := n.holds[r.id]
		h.session, h.locked = s.number, true
		h.lease.Renew(n.c.terms().Until(sent))
	}
	if len(ours) > 0 {
		n.c.log.Info("kept the leases through a break of the connection", "leases", len(ours))
	}
	moved := map[int64]bool{}
	for _, seat := range seats {
		moved[seat] = true
	}
	for seat, cl := range n.claims {
		cl.queued = moved[seat]
	}
	n.leaving = nil
}

// respectHarm gives all leases up if somebody has ended the last session with
// pg_terminate_backend, and not the server with it: that is how an administrator
// takes them away.
func (n *node) respectHarm(s *session) {
	last := n.old[len(n.old)-1]
	pgErr := (*pgconn.PgError)(nil)
	if errors.As(last.lost, &pgErr) && pgErr.Code == codeAdminShutdown && last.server.started.Equal(s.server.started) {
		n.c.log.Warn("somebody has ended the session; stopping what runs", "leases", len(n.holds))
		n.book.LoseAll(highlander.ErrLeaseLost)
	}
}

// sayGoodbye gives everything up that the node has.
func (n *node) sayGoodbye(s *session) {
	s.parting.Store(true)
	n.doAll()
	n.failAll(highlander.ErrClosed)
	n.book.Close()
	if s.work.IsClosed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), n.c.opTimeout())
	defer cancel()
	b := s.newBatch()
	held := slices.Collect(maps.Values(n.holds))
	n.addGiveBack(b, held, nil)
	b.add(lockIDsOf, s.number)
	b.add(dropOldNodes, []int64{s.number})
	b.add(freeIDsOf, s.number, n.c.channel())
	b.add("select pg_notify($1, 'ring')", n.c.channel())
	if err := b.send(ctx); err != nil {
		n.c.log.Warn("could not release the leases; others have to wait for them to run out", "leases", len(held), "error", err)
	}
	for _, h := range held {
		for _, waiting := range h.waiting {
			waiting <- nil
		}
	}
}
