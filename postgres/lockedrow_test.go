package postgres_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Locks outlast the transaction that took them: where it fails, because somebody has
// locked a row for too long, nobody else could take the id.
func TestAttemptThatFailsLeavesNoLock(t *testing.T) {
	t.Parallel()
	for name, meanwhile := range map[string]func(next *waiter){
		"and is made again": func(*waiter) {},
		"and is given up":   func(next *waiter) { next.giveUp(); <-next.done },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, sharedServer(t), 8*time.Second)
			l := w.acquire(w.open(w.server.URL(), "holder"), "id")
			next := w.queue(w.open(w.server.URL(), "next"), "id")
			third := w.queue(w.open(w.server.URL(), "third"), "id")
			w.asAdmin(func(ctx context.Context, conn *pgx.Conn) error {
				if err := conn.PgConn().Exec(ctx, w.inSchema("begin; select from $schema.waiters for update")).Close(); err != nil {
					return err
				}
				w.release(l)
				w.logs("take ids: ERROR: canceling statement due to lock timeout")
				meanwhile(next)
				return conn.PgConn().Exec(ctx, "rollback").Close()
			})
			if <-next.done; next.err == nil {
				w.release(next.got)
			}
			third.lease()
		})
	}
}

// Somebody leaves a transaction open. That costs the id whose row it has locked, and
// nothing else.
func TestLockedRowHoldsUpNoOtherID(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharedServer(t), 12*time.Second)
	holder, next := w.open(w.server.URL(), "holder"), w.open(w.server.URL(), "next")
	stuck, other := w.acquire(holder, "stuck"), w.acquire(holder, "other")
	waitsForStuck, waitsForOther := w.queue(next, "stuck"), w.queue(next, "other")
	var releasing sync.WaitGroup
	w.asAdmin(func(ctx context.Context, conn *pgx.Conn) error {
		if err := conn.PgConn().Exec(ctx, w.inSchema("begin; select from $schema.leases where id = 'stuck' for update")).Close(); err != nil {
			return err
		}
		releasing.Go(func() { _ = stuck.Release(w.Context()) }) // as long as it takes
		w.logs("release ids: ERROR: canceling statement due to lock timeout")
		w.release(other)
		l := waitsForOther.lease()
		if h, err := holder.Lookup(ctx, "other"); err != nil || h.Token != l.Token() {
			t.Errorf("Lookup: %v, %v; want the holder with token %d", h, err, l.Token())
		}
		third := w.start(next, "a third id")
		third.lease()
		w.logs("somebody else has locked the row of the id")
		w.logs("cannot do what is due")
		waitsForStuck.stillWaits()
		return conn.PgConn().Exec(ctx, "rollback").Close()
	})
	waitsForStuck.lease()
	releasing.Wait()
}
