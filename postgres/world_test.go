package postgres_test

import (
	"context"
	"time"

	"highlander"
	"highlander/postgres"
)

// patience is a safety net: no step is expected to need a noticeable part of it.
const patience = 30 * time.Second

// forever is a TTL that no test waits for.
const forever = 2 * time.Minute

// acquire waits for the lease of an id.
func (w *world) acquire(c *postgres.Cluster, id string) highlander.Lease {
	w.Helper()
	return w.start(c, id).lease()
}

// waiter is a call of Acquire.
type waiter struct {
	w      *world
	giveUp context.CancelFunc
	done   chan struct{}
	got    highlander.Lease
	err    error
}

// start starts a call of Acquire, and returns when it is in the queue, or served.
func (w *world) start(c *postgres.Cluster, id string) *waiter {
	w.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	wait := &waiter{w: w, giveUp: cancel, done: make(chan struct{})}
	go func() {
		defer close(wait.done)
		wait.got, wait.err = c.Acquire(ctx, id, highlander.AcquireOptions{})
	}()
	w.after = append(w.after, func() { cancel(); <-wait.done })
	return wait
}

// queue starts a call of Acquire, and returns when it is in the queue.
func (w *world) queue(c *postgres.Cluster, id string) *waiter {
	w.Helper()
	before := w.waiting(id)
	wait := w.start(c, id)
	w.eventually("the call is in the queue", func() bool { return w.waiting(id) == before+1 })
	return wait
}

func (w *world) waiting(id string) int {
	w.Helper()
	if w.admin("select count(*) from pg_namespace where nspname = $1", w.schema) == 0 {
		return 0
	}
	return w.admin("select count(*) from $schema.waiters where id = $1", id)
}

func (a *waiter) lease() highlander.Lease {
	a.w.Helper()
	a.w.receive(a.done, "Acquire returns")
	if a.err != nil {
		a.w.Fatal(a.err)
	}
	return a.got
}

func (a *waiter) stillWaits() {
	a.w.Helper()
	select {
	case <-a.done:
		a.w.Fatalf("Acquire has returned: %v, %v", a.got, a.err)
	default:
	}
}

func (w *world) release(l highlander.Lease) {
	w.Helper()
	if err := l.Release(w.Context()); err != nil {
		w.Fatal(err)
	}
}

func (w *world) receive(done <-chan struct{}, what string) {
	w.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		w.Fatalf("it did not happen within %v that %s", patience, what)
	}
}

func (w *world) eventually(what string, is func() bool) {
	w.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("it did not happen within %v that %s", patience, what)
		}
	}
}

// logs waits until one of the nodes has logged a line with that in it.
func (w *world) logs(what string) {
	w.Helper()
	w.eventually("a node logs "+what, func() bool { return w.log.has(what) })
}

func (w *world) isHeld(l highlander.Lease) {
	w.Helper()
	if err := l.Err(); err != nil {
		w.Fatalf("the lease has ended: %v", err)
	}
}

// ringIsClosed reports whether each of n nodes waits for the lock of another.
func (w *world) ringIsClosed(n int) bool {
	return n == w.admin(`select count(distinct l.objid) from pg_locks l join $schema.nodes n on l.pid = n.ring_pid
		where l.locktype = 'advisory' and not l.granted`)
}
