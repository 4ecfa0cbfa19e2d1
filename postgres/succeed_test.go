package postgres_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"highlander"
)

// What ends a single connection of a living process is no proof either.
func TestBrokenConnectionCostsNoLease(t *testing.T) {
	t.Parallel()
	k := newContest(t, direct)
	k.holder.BreakWork()
	k.logs("kept the leases through a break of the connection")
	k.next.stillWaits()
	k.isHeld(k.lease)
	k.release(k.lease)
	k.next.lease()
}

// What has become of a lease while its holder had no session is respected when it has
// one again.
func TestLeaseThatWasTakenAwayMeanwhileIsNotKept(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		harm string
		want error
	}{
		"released":                    {`update $schema.leases set released = true where id = 'id'`, highlander.ErrLeaseLost},
		"granted to another":          {`update $schema.leases set token = token + 5 where id = 'id'`, highlander.ErrConflict},
		"written over to another":     {`update $schema.leases set session = 4711 where id = 'id'`, highlander.ErrLeaseLost},
		"locked by somebody, for now": {`select pg_advisory_lock(key) from $schema.leases where id = 'id'`, highlander.ErrLeaseLost},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, sharedServer(t), forever)
			holder := w.open(w.server.URL(), "holder")
			l := w.acquire(holder, "id")
			w.asAdmin(func(ctx context.Context, conn *pgx.Conn) error {
				var harm sync.WaitGroup
				defer harm.Wait()
				harm.Go(func() {
					if err := conn.PgConn().Exec(ctx, w.inSchema(test.harm)).Close(); err != nil {
						t.Error(err)
					}
				})
				w.eventually("it is done, or is about to be", func() bool {
					return w.admin(`select count(*) from $schema.leases where id = 'id' and (released or token <> $1 or session = 4711
						or exists (select from pg_locks where not granted and mode = 'ExclusiveLock' and objid = key & 4294967295))`, int64(l.Token())) == 1
				})
				holder.BreakWork()
				w.receive(l.Done(), "the holder is told")
				return nil
			})
			if err := l.Err(); !errors.Is(err, test.want) {
				t.Errorf("the lease has ended with %v; want %v", err, test.want)
			}
			if w.log.has("kept the leases") {
				t.Error("it was kept at first")
			}
		})
	}
}

// How an attempt to take an id has ended is not known when the connection breaks on
// the answer. Nobody was given the lease, so it is free.
func TestLeaseThatNobodyWasGivenIsFreed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharedServer(t), forever)
	holder := w.open(w.server.URL(), "holder")
	l := w.acquire(holder, "id")
	w.adminExec(`insert into $schema.leases select 'unknown', key + 1, token, session, node, meta, since, ttl_ms, released from $schema.leases`)
	holder.BreakWork()
	w.eventually("it is free", func() bool {
		return w.admin("select count(*) from $schema.leases where id = 'unknown' and released") == 1
	})
	w.logs("kept the leases through a break of the connection")
	w.isHeld(l)
}

// A crash of the server ends all sessions, and proves nothing.
func TestCrashOfTheServerCostsNoLease(t *testing.T) {
	t.Parallel()
	w := newWorld(t, startServer(t), forever)
	l := w.acquire(w.open(w.server.URL(), "holder"), "id")
	next := w.queue(w.open(w.server.URL(), "next"), "id")
	if err := w.server.Crash(); err != nil {
		t.Fatal(err)
	}
	if err := w.server.StartAgain(); err != nil {
		t.Fatal(err)
	}
	w.logs("kept the leases through a break of the connection")
	next.stillWaits()
	w.isHeld(l)
	w.release(l)
	next.lease()
}
