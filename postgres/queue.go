package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// What goes on in the queues of ids. All statements of a batch are one
// transaction, and each sees what was committed before it began. Whoever changes
// anything about an id locks its row of leases first, in the order of ids: so a
// release and a new waiter cannot miss each other.
const (
	lockRows = `select id, key, token, node, released, ttl_ms from $schema.leases where id = any($1) order by id for update`

	// lockedRows are those that others have locked at this moment.
	lockedRows = `with free as materialized (select id from $schema.leases where id = any($1) for update skip locked)
		select id from $schema.leases where id = any($1) and id not in (select id from free)`

	makeRows = `insert into $schema.leases (id, key, token, session, node, meta, since, ttl_ms, released)
		select id, key, 0, 0, '', '', clock_timestamp(), 0, true from unnest($1::text[], $2::bigint[]) as wanted(id, key)
		on conflict do nothing`

	findClashes = `select wanted.id, l.id from unnest($1::text[], $2::bigint[]) as wanted(id, key) join $schema.leases l using (key) where l.id <> wanted.id`

	joinQueues = `insert into $schema.waiters (session, seat, id)
		select $1, seat, id from unnest($2::bigint[], $3::text[]) with ordinality as wanted(seat, id, nr) order by nr
		on conflict do nothing`

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

	leaveQueues = `delete from $schema.waiters where session = $1 and seat = any($2)`

	// callFirst calls those who are first in a queue, where the id is free.
	callFirst = `select pg_notify($2, 'take ' || first.session || ' ' || first.id) from (
			select distinct on (w.id) w.id, w.session from $schema.waiters w join $schema.leases l using (id)
			where w.id = any($1) and l.released order by w.id, w.place
		) as first`

	// markReleased says that leases are over. A row that somebody has deleted is
	// made anew, so that the token is remembered.
	markReleased = `insert into $schema.leases as l (id, key, token, session, node, meta, since, ttl_ms, released)
		select id, key, token, 0, '', '', clock_timestamp(), 0, true from unnest($1::text[], $2::bigint[], $3::bigint[]) as done(id, key, token)
		on conflict (id) do update set released = true where l.token = excluded.token`

	unlock = `select pg_advisory_unlock(key) from unnest($1::bigint[]) as held(key)`

	// unlockAllBut undoes what a statement has locked that was rolled back: the locks
	// of a session are not part of a transaction.
	unlockAllBut = `select pg_advisory_unlock(key) from (
			select classid::bigint << 32 | objid::bigint as key from pg_locks
			where locktype = 'advisory' and objsubid = 1 and pid = pg_backend_pid() and granted and mode = 'ExclusiveLock'
			and database = (select oid from pg_database where datname = current_database())
		) as locked where key <> all($1)`

	// What is lost with it in a crash of the server is found out after a TTL.
	dontWaitForDisk = `select set_config('synchronous_commit', 'off', true)`
)

// errRowLocked is that somebody else has locked the row of an id, such as an administrator
// whose transaction is left open.
type errRowLocked struct{ id string }

func (e errRowLocked) Error() string {
	return fmt.Sprintf("somebody else has locked the row of the id %q", e.id)
}

// lockedAmong returns the ids whose rows others have locked, and an error that names one:
// but only after an attempt has failed by that, so that one row holds up no more than
// its id.
func (n *node) lockedAmong(ctx context.Context, s *session, ids []string) (locked map[string]bool, left, err error) {
	if !n.rowLocked || len(ids) == 0 {
		return nil, nil, nil
	}
	var found []string
	b := s.newBatch()
	collect(b.add(lockedRows, ids), &found, func(rows pgx.Rows, id *string) error { return rows.Scan(id) })
	if err := b.send(ctx); err != nil {
		return nil, nil, fmt.Errorf("look for locked rows: %w", err)
	}
	locked = map[string]bool{}
	for _, id := range found {
		locked[id], left = true, errRowLocked{id}
	}
	return locked, left, nil
}

// noteLocked notes that an attempt has failed.
func (n *node) noteLocked(err error) {
	if pgErr := (*pgconn.PgError)(nil); errors.As(err, &pgErr) && pgErr.Code == codeLockNotAvailable {
		n.rowLocked = true
	}
}

// batch are statements of one transaction and what to do with their results.
type batch struct {
	s     *session
	batch pgx.Batch
}

func (s *session) newBatch() *batch { return &batch{s: s} }

func (b *batch) add(sql string, args ...any) *pgx.QueuedQuery {
	return b.batch.Queue(inSchema(b.s.c.schema, sql), args...)
}

// send carries the batch out. What its functions were given counts only if there
// is no error: before that, it may be rolled back.
func (b *batch) send(ctx context.Context) error {
	b.s.warned.Store(false)
	ctx, cancel := context.WithTimeout(ctx, b.s.c.opTimeout())
	defer cancel()
	return b.s.work.SendBatch(ctx, &b.batch).Close()
}

// collect is for batch.add: it gathers the rows of one statement.
func collect[T any](q *pgx.QueuedQuery, into *[]T, scan func(pgx.Rows, *T) error) {
	q.Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var row T
			if err := scan(rows, &row); err != nil {
				return err
			}
			*into = append(*into, row)
		}
		return rows.Err()
	})
}

// row is one of leases, as far as the queue is concerned.
type row struct {
	id       string
	key      int64
	token    int64
	node     string
	released bool
	ttl      time.Duration
}

func scanRow(rows pgx.Rows, r *row) error {
	var ttl int64
	err := rows.Scan(&r.id, &r.key, &r.token, &r.node, &r.released, &ttl)
	r.ttl = millis(ttl)
	return err
}

// clash is an id that cannot have a row, because another one has the same hash.
type clash struct{ id, other string }

// memory is what a node knows of the last lease of an id that it waits for. If its
// row is gone, somebody has deleted it; that says nothing about its child, which
// may run for a TTL.
type memory struct {
	token int64
	open  bool // it was not released when it was seen last
	ttl   time.Duration
	gone  time.Duration // when an older row was seen in its place; zero if that was not
}

// see takes in the row of an id, read at that time. The TTL is never less than that
// of this node: see peer.
func (m *memory) see(r row, now, own time.Duration) {
	switch {
	case r.token >= m.token:
		*m = memory{token: r.token, open: !r.released, ttl: max(r.ttl, m.ttl, own)}
	case m.gone == 0:
		m.gone = now
	}
}

// vanish takes in that there is no row. Whoever had the lease then has its child
// stopped when a TTL has passed.
func (m *memory) vanish(now, own time.Duration) {
	m.ttl = max(m.ttl, own)
	m.token, m.open, m.gone = max(m.token, 1), true, now // a row that is made anew has token 0
}

// floor is a token that the next one has to be larger than.
func (m *memory) floor() int64 {
	if m == nil {
		return 0
	}
	return m.token
}

// least is the token that a row has to have for the lease before to be over.
func (m *memory) least(now time.Duration) int64 {
	if m == nil || !m.open || m.gone != 0 && now >= m.gone+m.ttl {
		return 0
	}
	return m.token
}

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

// queue puts claims into the queues of their ids, and looks for ids that cannot have
// one.
func (n *node) queue(b *batch, fresh []*claim, clashes *[]clash) {
	var seats []int64
	var ids []string
	for _, cl := range fresh {
		seats = append(seats, cl.seat)
		ids = append(ids, cl.id)
	}
	rows := slices.Compact(slices.Sorted(slices.Values(ids)))
	keys := make([]int64, len(rows))
	for i, id := range rows {
		keys[i] = n.c.key("id", id)
	}
	b.add(makeRows, rows, keys)
	collect(b.add(findClashes, rows, keys), clashes, func(rows pgx.Rows, c *clash) error { return rows.Scan(&c.id, &c.other) })
	b.add(joinQueues, b.s.number, seats, ids)
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

// remember notes tokens that others have had.
func (n *node) remember(rows []row) {
	now := n.clock()
	for _, r := range rows {
		if n.known[r.id] == nil {
			n.known[r.id] = &memory{}
		}
		n.known[r.id].see(r, now, n.c.ttl)
	}
}

// missed notes that the rows of ids are gone that this node waits for.
func (n *node) missed(ids []string) {
	now := n.clock()
	for _, id := range ids {
		if n.known[id] == nil {
			n.known[id] = &memory{}
		}
		n.known[id].vanish(now, n.c.ttl)
	}
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

// refuseClashes fails the claims for ids that clash.
func (n *node) refuseClashes(fresh []*claim, clashes []clash) {
	others := map[string]string{}
	for _, c := range clashes {
		others[c.id] = c.other
	}
	for _, cl := range fresh {
		if other, found := others[cl.id]; found {
			delete(n.claims, cl.seat)
			n.leaving = append(n.leaving, cl)
			cl.fail(fmt.Errorf("postgres: acquire %q: its 64-bit hash is that of the id %q: one of them needs another name, or another schema", cl.id, other))
		}
	}
}

// giveBack tells the others which leases are over, and which claims were given up.
func (n *node) giveBack(ctx context.Context, s *session) error {
	var ids []string
	for id, h := range n.holds {
		if h.giveBack {
			ids = append(ids, id)
		}
	}
	for _, cl := range n.leaving {
		ids = append(ids, cl.id)
	}
	locked, left, err := n.lockedAmong(ctx, s, ids)
	if err != nil {
		return err
	}
	var done []*hold
	for id, h := range n.holds {
		if h.giveBack && !locked[id] {
			done = append(done, h)
		}
	}
	var leaving, staying []*claim
	for _, cl := range n.leaving {
		if locked[cl.id] {
			staying = append(staying, cl)
		} else {
			leaving = append(leaving, cl)
		}
	}
	if len(done)+len(leaving) == 0 {
		return left
	}
	b := s.newBatch()
	n.addGiveBack(b, done, leaving)
	if err := b.send(ctx); err != nil {
		n.noteLocked(err)
		return fmt.Errorf("release ids: %w", err)
	}
	n.leaving = staying
	for _, h := range done {
		n.c.log.Debug("released", "id", h.id, "token", h.token)
		delete(n.holds, h.id)
		if known := n.known[h.id]; known != nil && known.token == h.token {
			known.open = false
		}
		for _, waiting := range h.waiting {
			waiting <- nil
		}
	}
	n.forget()
	return left
}

func (n *node) addGiveBack(b *batch, done []*hold, leaving []*claim) {
	slices.SortFunc(done, func(x, y *hold) int { return cmp.Compare(x.id, y.id) })
	var ids []string
	var keys, tokens, locked, seats []int64
	for _, h := range done {
		ids = append(ids, h.id)
		keys = append(keys, h.key)
		tokens = append(tokens, h.token)
		if h.locked {
			locked = append(locked, h.key)
		}
	}
	touched := slices.Clone(ids)
	for _, cl := range leaving {
		touched = append(touched, cl.id)
		seats = append(seats, cl.seat)
	}
	b.add(dontWaitForDisk)
	b.add(lockRows, slices.Compact(slices.Sorted(slices.Values(touched))))
	b.add(markReleased, ids, keys, tokens)
	b.add(leaveQueues, b.s.number, seats)
	b.add(unlock, locked)
	b.add(callFirst, touched, n.c.channel())
}

// forget drops what is not needed any more.
func (n *node) forget() {
	needed := map[string]bool{}
	for _, cl := range n.claims {
		needed[cl.id] = true
	}
	maps.DeleteFunc(n.known, func(id string, _ *memory) bool { return n.holds[id] == nil && !needed[id] })
}
