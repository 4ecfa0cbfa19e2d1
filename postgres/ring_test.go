package postgres_test

import (
	"regexp"
	"testing"
	"time"
)

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
