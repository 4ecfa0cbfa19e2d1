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
