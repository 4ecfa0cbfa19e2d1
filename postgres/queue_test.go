package postgres_test

import (
	"context"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"highlander"
	"highlander/postgres"
)

func TestIDsWithTheSameHashAreSeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharedServer(t), forever)
	short := postgres.WithHash(func(name string) uint64 { return uint64(len(name)) })
	c := w.open(w.server.URL(), "node", short)
	l := w.acquire(c, "abc")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, c := range []*postgres.Cluster{c, w.open(w.server.URL(), "other", short)} {
		_, err := c.Acquire(ctx, "xyz", highlander.AcquireOptions{})
		if err == nil || !strings.Contains(err.Error(), `"xyz"`) || !strings.Contains(err.Error(), `"abc"`) {
			t.Errorf("error is %v; want one that names both ids", err)
		}
	}
	w.isHeld(l)
	w.acquire(c, "abcd")
	w.eventually("nobody is left in a queue", func() bool { return w.waiting("xyz") == 0 })
}

// Whoever deletes the row of an id, when nobody holds or waits for it, takes the
// last token with it. The clock knows better.
func TestTokensGrowWhenTheTablesAreGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharedServer(t), forever)
	c := w.open(w.server.URL(), "node")
	last := uint64(0)
	for _, sql := range []string{"select 1", "delete from $schema.leases", "truncate $schema.leases", "drop schema $schema cascade"} {
		l := w.acquire(c, "id")
		if l.Token() <= last {
			t.Fatalf("token %d after %d", l.Token(), last)
		}
		last = l.Token()
		w.release(l)
		w.adminExec(sql)
	}
}

// Nor does a clock that was put back matter, as long as somebody remembers.
func TestTokensGrowThoughTheClockIsPutBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharedServer(t), 2*time.Second)
	a, b := w.open(w.server.URL(), "a"), w.open(w.server.URL(), "b")
	l := w.acquire(a, "id")
	future := l.Token() + 1e15
	next := w.queue(b, "id")
	w.adminExec("update $schema.leases set token = " + strconv.FormatUint(future, 10) + ", session = 4711, node = 'nobody'")
	w.receive(l.Done(), "the holder is told")
	w.release(l)
	if got := next.lease(); got.Token() <= future {
		t.Errorf("token %d after %d", got.Token(), future)
	}
}

// A lease whose row was deleted together with its session is waited for by who
// remembers it, though the table says nothing of it.
func TestWaiterRemembersTheLeaseWhoseRowIsGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharedServer(t), 2*time.Second)
	proxy := w.newProxy()
	l := w.acquire(w.open(w.behind(proxy), "holder"), "id")
	next := w.queue(w.open(w.server.URL(), "next"), "id")
	proxy.Close() // nobody will put the row back
	w.adminExec(`select pg_terminate_backend(work_pid), pg_terminate_backend(ring_pid) from $schema.nodes where name like 'holder#%'`)
	w.adminExec(`delete from $schema.leases`)
	third := w.queue(w.open(w.server.URL(), "third"), "id") // has the row made anew
	after := next.lease()
	if early := time.Until(l.Expires()); early > 0 {
		t.Errorf("given out %v before the lease has run out whose row is gone", early)
	}
	if after.Token() <= l.Token() {
		t.Errorf("token %d after %d", after.Token(), l.Token())
	}
	third.stillWaits()
}

// Nor is it waited for in vain, if nobody comes who has the row made anew: not the
// holder, and no other claim.
func TestIDWhoseRowIsGoneIsTakenByWhoWaited(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharedServer(t), 2*time.Second)
	proxy := w.newProxy()
	l := w.acquire(w.open(w.behind(proxy), "holder"), "id")
	next := w.queue(w.open(w.server.URL(), "next"), "id")
	proxy.Close() // nobody will put the row back
	w.adminExec(`select pg_terminate_backend(work_pid), pg_terminate_backend(ring_pid) from $schema.nodes where name like 'holder#%'`)
	w.adminExec(`delete from $schema.leases`)
	after := next.lease()
	if early := time.Until(l.Expires()); early > 0 {
		t.Errorf("given out %v before the lease has run out whose row is gone", early)
	}
	if after.Token() <= l.Token() {
		t.Errorf("token %d after %d", after.Token(), l.Token())
	}
}

// Somebody has tidied up the row of a session that is dead, but not its place.
func TestPlaceOfASessionThatNobodyKnowsBlocksNoQueue(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharedServer(t), time.Second)
	c := w.open(w.server.URL(), "node")
	w.acquire(c, "another id")
	w.adminExec("insert into $schema.waiters (session, seat, id) values (4711, 1, 'id')")
	w.acquire(c, "id")
}

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

// ringError is a wait in the ring that has ended by an error, in the log of the server.
var ringError = regexp.MustCompile(`canceling statement due to lock timeout\n[^\n]*pg_advisory_lock_shared`)

// A transaction that is blocked for ever would keep VACUUM from its work.
func TestWaitingInTheRingBeginsAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharedServer(t), time.Second)
	w.acquire(w.open(w.server.URL(), "a"), "a")
	w.acquire(w.open(w.server.URL(), "b"), "b")
	w.eventually("the ring is closed", func() bool { return w.ringIsClosed(2) })
	began := func() int {
		return w.admin("select (extract(epoch from min(xact_start)) * 1000000)::bigint from pg_stat_activity a join $schema.nodes n on a.pid = n.ring_pid")
	}
	first := began()
	w.eventually("both begin anew", func() bool { return began() > first })
	if ringError.MatchString(w.server.LogTail(20000)) {
		t.Error("it writes errors into the log of the server")
	}
}

// A proxy ends connections that are idle for some time, and the session with it: no
// peer could be seen for longer than that.
func TestRingBehindAProxyIsNotSilentForLong(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharedServer(t), time.Second)
	c := w.open(w.behind(w.newProxy()), "behind")
	w.acquire(c, "a")
	w.acquire(w.open(w.server.URL(), "direct"), "b")
	w.eventually("the ring is closed", func() bool { return w.ringIsClosed(2) })
	said := func() (pid, at int) {
		const of = " from pg_stat_activity a join $schema.nodes n on a.pid = n.ring_pid where n.name = $1"
		return w.admin("select coalesce(max(pid), 0)"+of, c.Node()), w.admin("select coalesce(max(extract(epoch from query_start) * 1000000), 0)::bigint"+of, c.Node())
	}
	pid, first := said()
	w.eventually("it says something", func() bool {
		now, at := said()
		if now != pid { // another session, on a busy machine
			pid, first = now, at
		}
		return at > first
	})
}
