package postgres

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// A lease is for the first in the queue, if the one before is over. Its token
	// is larger than all that anybody here has heard of, and than those that
	// nobody remembers: time goes on, in microseconds. A row that is older than what
	// this node remembers is not to be trusted: see memory.
	takeFirst = `with firsts as (
			select distinct on (id) id, session, seat from $schema.waiters where id = any($1) order by id, place
		), mine as materialized (
			select l.id, l.key, f.seat from firsts f join $schema.leases l using (id)
			join unnest($5::bigint[], $8::bigint[]) as w(seat, least) using (seat)
			where f.session = $2 and l.released and l.token >= w.least and exists (select from $schema.nodes n where n.session = $2)
		), locked as materialized (
			select id, key, seat, pg_try_advisory_lock(key) as got from mine
		), taken as (
			update $schema.leases l set token = greatest(l.token + 1, w.floor + 1, (extract(epoch from clock_timestamp()) * 1000000)::bigint),
				session = $2, node = $3, meta = w.meta, since = clock_timestamp(), ttl_ms = $4, released = false
			from locked k join unnest($5::bigint[], $6::text[], $7::bigint[]) as w(seat, meta, floor) using (seat)
			where l.id = k.id and k.got returning l.id, l.token, l.since
		), left_queue as (
			delete from $schema.waiters w using locked k where w.session = $2 and w.seat = k.seat and k.got
		)
		select k.id, k.key, k.seat, k.got, coalesce(t.token, 0), coalesce(t.since, now()) from locked k left join taken t using (id)`

	// unlockAllBut undoes what a statement has locked that was rolled back: the locks
	// of a session are not part of a transaction.
	unlockAllBut = `select pg_advisory_unlock(key) from (
			select classid::bigint << 32 | objid::bigint as key from pg_locks
			where locktype = 'advisory' and objsubid = 1 and pid = pg_backend_pid() and granted and mode = 'ExclusiveLock'
			and database = (select oid from pg_database where datname = current_database())
		) as locked where key <> all($1)`
)

// takeAtOnce is how many claims are dealt with in a transaction at most: what
// else there is to do, such as renewals, is between them.
const takeAtOnce = 250

// taken is what came of an attempt to take an id.
type taken struct {
	id    string
	key   int64
	seat  int64
	got   bool
	token int64
	since time.Time
}

// take puts new claims into the queues, and takes the ids for which this node is
// the first.
func (n *node) take(ctx context.Context, s *session) error {
	fresh, ids := n.toTake()
	locked, left, err := n.lockedAmong(ctx, s, ids)
	fresh = slices.DeleteFunc(fresh, func(cl *claim) bool { return locked[cl.id] })
	ids = slices.DeleteFunc(ids, func(id string) bool { return locked[id] })
	if err != nil || len(ids) == 0 {
		return cmp.Or(err, left)
	}
	var rows []row
	var got []taken
	b := s.newBatch()
	var clashes []clash
	if len(fresh) > 0 {
		n.queue(b, fresh, &clashes)
	}
	collect(b.add(lockRows, ids), &rows, scanRow)
	seats, metas, floors, least := n.wishes(ids)
	collect(b.add(takeFirst, ids, s.number, n.c.name, n.c.ttl.Milliseconds(), seats, metas, floors, least), &got, func(rows pgx.Rows, t *taken) error {
		return rows.Scan(&t.id, &t.key, &t.seat, &t.got, &t.token, &t.since)
	})
	if err := b.send(ctx); err != nil {
		s.strays = true
		n.noteLocked(err)
		return fmt.Errorf("take ids: %w", err)
	}
	for _, cl := range fresh {
		cl.queued = true
	}
	for _, id := range ids {
		delete(n.calls, id)
	}
	n.remember(rows)
	if s.warned.Load() {
		n.c.log.Warn("the server warned about the taking of ids, so they are given back: it may not be on the standby", "ids", len(got))
		n.tookInVain(s, got)
	} else {
		n.took(s, got)
	}
	n.refuseClashes(fresh, clashes)
	return left
}

// unlockStrays gives back what an attempt has locked that has failed: nobody else
// could take those ids, for as long as this session lasts. It comes before the next
// attempt, because each lock of the same key is counted.
func (n *node) unlockStrays(ctx context.Context, s *session) error {
	if !s.strays {
		return nil
	}
	held := []int64{n.c.workKey(s.number)}
	for _, h := range n.holds {
		if h.locked {
			held = append(held, h.key)
		}
	}
	b := s.newBatch()
	b.add(unlockAllBut, held)
	if err := b.send(ctx); err != nil {
		return fmt.Errorf("unlock ids that were not taken: %w", err)
	}
	s.strays = false
	return nil
}

// toTake returns the claims that are not in the queue, and all ids to look at. An
// id that is held here, or was until the others are told, is not to be had.
func (n *node) toTake() (fresh []*claim, ids []string) {
	for id := range n.calls {
		switch {
		case n.holds[id] != nil:
			delete(n.calls, id) // it is called again when that is over
		case len(ids) < takeAtOnce:
			ids = append(ids, id)
		}
	}
	for _, cl := range n.claims {
		if !cl.queued {
			fresh = append(fresh, cl)
		}
	}
	slices.SortFunc(fresh, func(a, b *claim) int { return cmp.Compare(a.seat, b.seat) })
	n.more = len(n.calls) > len(ids) || len(fresh) > takeAtOnce
	fresh = fresh[:min(len(fresh), takeAtOnce)]
	for _, cl := range fresh {
		ids = append(ids, cl.id)
	}
	slices.Sort(ids)
	return fresh, slices.Compact(ids)
}

// wishes returns what claims want the rows of their leases to have, of those ids
// that are to be had: a lease must not be taken next to one that this process has.
func (n *node) wishes(ids []string) (seats []int64, metas []string, floors, least []int64) {
	now := n.clock()
	wanted := map[string]bool{}
	for _, id := range ids {
		wanted[id] = n.holds[id] == nil
	}
	for seat, cl := range n.claims {
		if wanted[cl.id] {
			seats = append(seats, seat)
			metas = append(metas, cl.meta)
			known := n.known[cl.id]
			least = append(least, known.least(now))
			if now < n.trusted {
				least[len(least)-1] = math.MaxInt64
			}
			floors = append(floors, known.floor())
		}
	}
	return seats, metas, floors, least
}

// took hands out what was taken.
func (n *node) took(s *session, got []taken) {
	for _, t := range got {
		cl := n.claims[t.seat]
		if !t.got {
			continue // a session that has ended is still there; the next sweep tries again
		}
		n.known[t.id] = &memory{token: t.token, open: true, ttl: n.c.ttl}
		n.c.log.Debug("won", "id", t.id, "token", t.token)
		n.grant(cl, &hold{id: t.id, key: t.key, token: t.token, meta: cl.meta, since: t.since, session: s.number, locked: true})
	}
}

// tookInVain gives back what was taken, if the standby is not known to have heard of
// it: after a fail-over, somebody else might take it at once. The claims join their
// queues again.
func (n *node) tookInVain(s *session, got []taken) {
	for _, t := range got {
		if t.got {
			n.claims[t.seat].queued = false
			n.known[t.id] = &memory{token: t.token, open: true, ttl: n.c.ttl}
			n.holds[t.id] = &hold{id: t.id, key: t.key, token: t.token, session: s.number, locked: true, giveBack: true}
		}
	}
	n.more = true
}
