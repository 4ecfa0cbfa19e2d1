package postgres

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"highlander"
)

const (
	renew = `update $schema.nodes set beat = beat + 1, beat_at = clock_timestamp(), ttl_ms = $2 where session = $1 returning beat`

	// ownState is what should be there of this session: its backend, the locks of
	// ids and its own, its leases and its places in queues.
	ownState = `select pg_backend_pid(),
		(select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid() and granted and mode = 'ExclusiveLock'
			and database = (select oid from pg_database where datname = current_database())),
		leases.count, leases.tokens, (select count(*) from $schema.waiters where session = $1)
		from (select count(*), coalesce(bit_xor(token), 0) as tokens from $schema.leases where session = $1 and not released) as leases`

	// free are ids that this node should have been called for: a call may be
	// lost, or have come while the lock was not free yet.
	free = `select w.id from $schema.waiters w join $schema.leases l using (id)
		where w.session = $1 and l.released and not exists (select from $schema.waiters e where e.id = w.id and e.place < w.place)`

	// missing are ids that this node waits for, and whose row somebody has deleted.
	// If their holder cannot put it back, nobody would be called any more.
	missing = `select distinct id from $schema.waiters w where session = $1 and not exists (select from $schema.leases l where l.id = w.id)`
)

// state is what is at the server of this session.
type state struct {
	pid     int32
	locks   int
	leases  int
	tokens  int64
	waiters int
}

// notOurs returns what shows that the session is not the one that has our locks.
// Where the backend is another one, what else it says is of no account.
func (found state) notOurs(wanted state) error {
	switch {
	case found.pid != wanted.pid:
		return errPooler
	case found.locks < wanted.locks:
		return fmt.Errorf("the session has %d advisory locks; it took %d", found.locks, wanted.locks)
	}
	return nil
}

// beat renews the leases of this node, by a write that is committed, and looks
// whether everything is as it should be. It is due each TTL/4, and when somebody
// has come or gone.
func (n *node) beat(ctx context.Context, s *session) error {
	sent := n.clock()
	if sent < n.nextBeat && !n.look {
		return nil
	}
	var beats []int64
	var found state
	var calls, gone []string
	var seen sight
	b := s.newBatch()
	collect(b.add(renew, s.number, n.c.ttl.Milliseconds()), &beats, func(rows pgx.Rows, beat *int64) error { return rows.Scan(beat) })
	b.add(ownState, s.number).QueryRow(func(row pgx.Row) error {
		return row.Scan(&found.pid, &found.locks, &found.leases, &found.tokens, &found.waiters)
	})
	collect(b.add(free, s.number), &calls, func(rows pgx.Rows, id *string) error { return rows.Scan(id) })
	collect(b.add(missing, s.number), &gone, func(rows pgx.Rows, id *string) error { return rows.Scan(id) })
	seen.addTo(b)
	err := b.send(ctx)
	if schemaIsGone(err) {
		return n.repair(ctx, s)
	}
	if err != nil {
		return fmt.Errorf("renew the leases: %w", err)
	}
	n.look, n.nextBeat = false, sent+n.c.terms().Every
	for _, id := range calls {
		n.calls[id] = true
	}
	n.missed(gone)
	if err := n.see(ctx, s, seen); err != nil {
		return err
	}
	if len(beats) == 1 {
		s.beat = beats[0]
	}
	wanted := n.wantedState(s)
	if err := found.notOurs(wanted); err != nil {
		return err
	}
	if s.warned.Load() {
		n.c.log.Warn("the server warned about a renewal, so it does not count: it may not be on the standby")
		return nil
	}
	found.locks = wanted.locks // others than ours may be there
	if len(beats) == 0 || len(gone) > 0 || found != wanted {
		return n.repair(ctx, s)
	}
	n.renewed(sent)
	return nil
}

// renewed says that a renewal sent at that time has succeeded.
func (n *node) renewed(sent time.Duration) {
	n.until = n.c.terms().Until(sent)
	n.book.RenewAll(n.until)
}

func (n *node) wantedState(s *session) state {
	want := state{pid: s.workPID, locks: 1, waiters: 0}
	for _, h := range n.holds {
		if h.session == s.number {
			want.leases++
			want.tokens ^= h.token
		}
		if h.locked {
			want.locks++
		}
	}
	for _, cl := range n.claims {
		if cl.queued {
			want.waiters++
		}
	}
	for _, cl := range n.leaving {
		if cl.queued {
			want.waiters++
		}
	}
	return want
}

const (
	restoreNode = `insert into $schema.nodes (session, name, ttl_ms, beat, beat_at, since, direct, local, work_pid, ring_pid)
		overriding system value values ($1, $2, $3, $4, clock_timestamp(), clock_timestamp(), false, false, $5, $6)
		on conflict (session) do update set beat = nodes.beat + 1, beat_at = clock_timestamp(), ttl_ms = excluded.ttl_ms`

	// restoreLeases puts rows back that somebody has deleted. Another node may
	// have made one in the meantime, for the queue; but as this session has the
	// lock of the id, nobody has had the lease.
	restoreLeases = `insert into $schema.leases as l (id, key, token, session, node, meta, since, ttl_ms, released)
		select id, key, token, $1, $2, meta, since, $3, false
		from unnest($4::text[], $5::bigint[], $6::bigint[], $7::text[], $8::timestamptz[]) as held(id, key, token, meta, since)
		on conflict (id) do update set token = excluded.token, session = excluded.session, node = excluded.node, meta = excluded.meta,
			since = excluded.since, ttl_ms = excluded.ttl_ms, released = false
		where l.released and l.token <> excluded.token`

	ownLeases = `select id, token from $schema.leases where session = $1 and not released`

	// What this session is said to have and does not.
	freeStrays  = `update $schema.leases set released = true where session = $1 and not released and id <> all($2)`
	leaveStrays = `delete from $schema.waiters where session = $1 and seat <> all($2)`
)

// repair puts back what others have taken out of our tables, as far as nobody else
// has come by it. Whoever has lost a lease by that is told.
func (n *node) repair(ctx context.Context, s *session) error {
	if err := s.ensureSchema(ctx); err != nil {
		return err
	}
	sent := n.clock()
	fresh := slices.Collect(maps.Values(n.claims))
	held := n.heldIn(s)
	ids, keys, tokens, metas, since := columns(held)
	var before, ours []row
	var clashes []clash
	b := s.newBatch()
	b.add(restoreNode, s.number, n.c.name, n.c.ttl.Milliseconds(), s.beat+1000, s.workPID, s.ringPID)
	n.queue(b, fresh, &clashes)
	collect(b.add(lockRows, ids), &before, scanRow)
	b.add(restoreLeases, s.number, n.c.name, n.c.ttl.Milliseconds(), ids, keys, tokens, metas, since)
	b.add(freeStrays, s.number, keysOf(n.holds))
	b.add(leaveStrays, s.number, keysOf(n.claims))
	collect(b.add(ownLeases, s.number), &ours, func(rows pgx.Rows, r *row) error { return rows.Scan(&r.id, &r.token) })
	if err := b.send(ctx); err != nil {
		return fmt.Errorf("repair the tables: %w", err)
	}
	n.c.log.Warn("somebody else has changed the tables; put back what is ours", "leases", len(ours))
	for _, cl := range fresh {
		cl.queued = true
	}
	n.leaving = nil
	n.refuseClashes(fresh, clashes)
	n.loseAllBut(held, ours, before)
	n.nextBeat = sent + n.c.terms().Every
	if !s.warned.Load() { // else it is tried again at the next beat, as after any renewal
		n.renewed(sent)
	}
	return nil
}

// heldIn returns what is held in a session, and was not given back.
func (n *node) heldIn(s *session) (held []*hold) {
	for _, h := range n.holds {
		if h.session == s.number && h.locked && !h.giveBack {
			held = append(held, h)
		}
	}
	slices.SortFunc(held, func(a, b *hold) int { return cmp.Compare(a.id, b.id) })
	return held
}

func columns(held []*hold) (ids []string, keys, tokens []int64, metas []string, since []time.Time) {
	for _, h := range held {
		ids, metas = append(ids, h.id), append(metas, h.meta)
		keys, tokens, since = append(keys, h.key), append(tokens, h.token), append(since, h.since)
	}
	return ids, keys, tokens, metas, since
}

// loseAllBut tells the holders of what is not ours any more. What the rows were
// before says whether others have it.
func (n *node) loseAllBut(held []*hold, ours, before []row) {
	still, others := map[string]int64{}, map[string]row{}
	for _, r := range ours {
		still[r.id] = r.token
	}
	for _, r := range before {
		others[r.id] = r
	}
	for _, h := range held {
		if still[h.id] == h.token {
			continue
		}
		h.session = 0 // its row is not ours
		if !h.live() {
			continue
		}
		cause := highlander.ErrLeaseLost
		if other := others[h.id]; !other.released && other.token != 0 && other.token != h.token {
			cause = highlander.ErrConflict
		}
		n.c.log.Warn("the lease is not ours any more; stopping", "id", h.id, "token", h.token, "holder", others[h.id].node)
		h.lease.Lose(cause)
	}
}

// keysOf returns the keys of a map, and never nil: that would be null to the server,
// with which nothing compares.
func keysOf[K comparable, V any](m map[K]V) []K { return slices.AppendSeq([]K{}, maps.Keys(m)) }
