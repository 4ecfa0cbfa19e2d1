package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
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
