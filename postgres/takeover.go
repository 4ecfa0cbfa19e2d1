package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// expire ends the sessions that have run out.
func (n *node) expire(ctx context.Context, s *session) error {
	for _, p := range n.peers {
		if n.clock() < p.runsOut() {
			continue
		}
		if err := n.expirePeer(ctx, s, p); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) expirePeer(ctx context.Context, s *session, p *peer) error {
	over, err := n.stillAt(ctx, s, p)
	if err != nil || !over {
		n.look = true
		return err
	}
	if err := s.terminate(ctx, p.session); err != nil {
		return err
	}
	n.c.log.Info("a node has not renewed its leases for its TTL; taking over", "peer", p.name, "ttl", p.ttl)
	return n.bury(ctx, s, p, false)
}

// stillAt reports whether a session is at the beat that was seen last.
func (n *node) stillAt(ctx context.Context, s *session, p *peer) (still bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, n.c.opTimeout())
	defer cancel()
	err = s.work.QueryRow(ctx, inSchema(n.c.schema, "select coalesce((select beat from $schema.nodes where session = $1), -1) = $2"), p.session, p.beat).Scan(&still)
	if err != nil {
		return false, fmt.Errorf("look at node %s: %w", p.name, err)
	}
	return still, nil
}

const (
	// fence is what a late renewal runs into. It does not matter to the dead.
	fence = `delete from $schema.nodes where session = $1 and ($3 or beat = $2)`

	lockIDsOf = `select id from $schema.leases l where session = $1 and not released
		or exists (select from $schema.waiters w where w.id = l.id and w.session = $1) order by id for update`

	freeIDsOf = `with freed as (
			update $schema.leases set released = true where session = $1 and not released
			and not exists (select from $schema.nodes where session = $1) returning id
		), left_queue as (
			delete from $schema.waiters where session = $1 and not exists (select from $schema.nodes where session = $1) returning id
		), first as (
			select distinct on (w.id) w.id, w.session from $schema.waiters w
			where w.session <> $1 and (w.id in (select id from freed) or w.id in (select l.id from left_queue join $schema.leases l using (id) where l.released))
			order by w.id, w.place
		)
		select (select count(*) from freed), case when first.id is not null then pg_notify($2, 'take ' || first.session || ' ' || first.id)::text end
		from (select 1) as one left join first on true`
)

// bury ends a session that is over, and calls those who wait for what it had. If
// it is not dead and was renewed after all, nothing happens.
func (n *node) bury(ctx context.Context, s *session, p *peer, dead bool) error {
	var freed int
	b := s.newBatch()
	b.add(dontWaitForDisk)
	b.add(fence, p.session, p.beat, dead)
	b.add(lockIDsOf, p.session)
	b.add(freeIDsOf, p.session, n.c.channel()).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			if err := rows.Scan(&freed, nil); err != nil {
				return err
			}
		}
		return rows.Err()
	})
	b.add("select pg_notify($1, 'ring')", n.c.channel())
	if err := b.send(ctx); err != nil {
		return fmt.Errorf("take over from node %s: %w", p.name, err)
	}
	n.look = true
	n.c.log.Info("freed what a node had", "peer", p.name, "ids", freed)
	return nil
}
