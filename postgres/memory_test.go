package postgres_test

import (
	"strconv"
	"testing"
	"time"

	"highlander"
)

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
	l, next := w.holdsWithoutARow("id")
	third := w.queue(w.open(w.server.URL(), "third"), "id") // has the row made anew
	next.followsAtTheEndOf(l)
	third.stillWaits()
}

// Nor is it waited for in vain, if nobody comes who has the row made anew: not the
// holder, and no other claim.
func TestIDWhoseRowIsGoneIsTakenByWhoWaited(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharedServer(t), 2*time.Second)
	l, next := w.holdsWithoutARow("id")
	next.followsAtTheEndOf(l)
}

// holdsWithoutARow has one node hold an id and another wait for it, when the row of
// the lease and the session are deleted, and the holder cannot put them back.
func (w *world) holdsWithoutARow(id string) (l highlander.Lease, next *waiter) {
	w.Helper()
	proxy := w.newProxy()
	l = w.acquire(w.open(w.behind(proxy), "holder"), id)
	next = w.queue(w.open(w.server.URL(), "next"), id)
	proxy.Close()
	w.adminExec(`select pg_terminate_backend(work_pid), pg_terminate_backend(ring_pid) from $schema.nodes where name like 'holder#%'`)
	w.adminExec(`delete from $schema.leases`)
	return l, next
}

// followsAtTheEndOf waits for the lease, which has to come when l has run out.
func (w *waiter) followsAtTheEndOf(l highlander.Lease) {
	w.w.Helper()
	after := w.lease()
	if early := time.Until(l.Expires()); early > 0 {
		w.w.Errorf("given out %v before the lease has run out whose row is gone", early)
	}
	if after.Token() <= l.Token() {
		w.w.Errorf("token %d after %d", after.Token(), l.Token())
	}
}
