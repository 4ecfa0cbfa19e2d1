package postgres

import (
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// What goes on in the queues of ids. All statements of a batch are one
// transaction, and each sees what was committed before it began. Whoever changes
// anything about an id locks its row of leases first, in the order of ids: so a
// release and a new waiter cannot miss each other.
const (
	lockRows = `select id, key, token, node, released, ttl_ms from $schema.leases where id = any($1) order by id for update`

	makeRows = `insert into $schema.leases (id, key, token, session, node, meta, since, ttl_ms, released)
		select id, key, 0, 0, '', '', clock_timestamp(), 0, true from unnest($1::text[], $2::bigint[]) as wanted(id, key)
		on conflict do nothing`

	findClashes = `select wanted.id, l.id from unnest($1::text[], $2::bigint[]) as wanted(id, key) join $schema.leases l using (key) where l.id <> wanted.id`

	joinQueues = `insert into $schema.waiters (session, seat, id)
		select $1, seat, id from unnest($2::bigint[], $3::text[]) with ordinality as wanted(seat, id, nr) order by nr
		on conflict do nothing`

	leaveQueues = `delete from $schema.waiters where session = $1 and seat = any($2)`

	// callFirst calls those who are first in a queue, where the id is free.
	callFirst = `select pg_notify($2, 'take ' || first.session || ' ' || first.id) from (
			select distinct on (w.id) w.id, w.session from $schema.waiters w join $schema.leases l using (id)
			where w.id = any($1) and l.released order by w.id, w.place
		) as first`
)

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
