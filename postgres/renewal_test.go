package postgres_test

import (
	"strconv"
	"testing"
	"time"
)

// A renewal that the standby has not seen is none: after a fail-over it would not
// have happened. So a primary that is cut off from its standby renews nothing,
// whatever the user's settings, and whoever makes it stop waiting.
func TestRenewalNeedsTheSynchronousStandby(t *testing.T) {
	t.Parallel()
	w := newWorld(t, startServer(t), time.Second)
	w.adminExec("alter role app set synchronous_commit = off")
	l := w.acquire(w.open(w.server.URL(), "holder"), "id")
	defer w.loseStandby()()
	// Each renewal is committed on the primary alone. A lease outlasts four at most.
	beats := "select coalesce(max(beat), 0) from $schema.nodes"
	for last := w.admin(beats) + 12; l.Err() == nil; {
		w.cancelWaits()
		if w.admin(beats) > last {
			t.Fatal("the lease is renewed by what the standby has not seen")
		}
	}
	w.logs("the lease was not renewed in time")
}

// loseStandby has commits wait for a standby that is not there, and find returns.
func (w *world) loseStandby() (find func()) {
	w.Helper()
	w.adminExec("alter system set synchronous_standby_names = 'nobody'")
	w.adminExec("select pg_reload_conf()")
	return func() {
		w.Helper()
		w.adminExec("alter system reset synchronous_standby_names")
		w.adminExec("select pg_reload_conf()")
	}
}

// cancelWaits does what an impatient administrator does to statements that hang.
func (w *world) cancelWaits() {
	w.Helper()
	w.adminExec("select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'")
}

// Nor is an id taken: after a fail-over, somebody else could take it at once.
func TestLeaseNeedsTheSynchronousStandby(t *testing.T) {
	t.Parallel()
	w := newWorld(t, startServer(t), forever)
	c := w.open(w.server.URL(), "node")
	w.acquire(c, "another id")
	find := w.loseStandby()
	w.eventually("renewals wait for the standby", func() bool {
		w.adminExec("set synchronous_commit = local; select pg_notify($1, 'ring')", c.Channel())
		return w.admin("select count(*) from pg_stat_activity where wait_event = 'SyncRep'") > 0
	})
	wait := w.start(c, "id")
	w.eventually("it is taken, by the word of the primary alone", func() bool {
		w.cancelWaits()
		return w.log.has("warned about the taking of ids")
	})
	wait.stillWaits()
	find()
	wait.lease()
}

// Nor does a session go on with what the last one had.
func TestSessionNeedsTheSynchronousStandbyToGoOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, startServer(t), 2*time.Second)
	c := w.open(w.server.URL(), "holder")
	l := w.acquire(c, "id")
	defer w.loseStandby()()
	w.eventually("a renewal does not count", func() bool {
		w.cancelWaits()
		return w.log.has("warned about a renewal")
	})
	const line = "kept the leases through a break"
	before := w.log.count(line)
	c.LoseSession()
	w.eventually("the lease runs out", func() bool {
		w.cancelWaits()
		return l.Err() != nil
	})
	if w.log.count(line) > before {
		t.Error("the lease was kept by what the standby has not seen")
	}
}

// The server must not end the session of a node that is silent before that node
// knows that its leases have run out.
func TestKeepalivesOutliveTheLease(t *testing.T) {
	t.Parallel()
	w := newWorld(t, startServer(t), 12*time.Second)
	w.adminExec("alter role app set tcp_keepalives_idle = 1")
	w.adminExec("alter role app set tcp_keepalives_count = 1")
	w.adminExec("alter role app set tcp_user_timeout = 1000")
	w.adminExec("alter role app set idle_session_timeout = 1000")
	w.adminExec("alter role app set statement_timeout = 1000")
	c := w.open(w.server.URL(), "node")
	w.acquire(c, "id")
	ask := func(setting string) int {
		t.Helper()
		answer, err := c.Ask(t.Context(), "select setting from pg_settings where name = '"+setting+"'")
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(answer)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	ttl := int(w.ttl / time.Second)
	if idle, interval, count := ask("tcp_keepalives_idle"), ask("tcp_keepalives_interval"), ask("tcp_keepalives_count"); idle+interval*count <= ttl {
		t.Errorf("keepalives end the session after %d s + %d * %d s; the TTL is %d s", idle, count, interval, ttl)
	}
	if timeout := ask("tcp_user_timeout"); timeout <= 1000*ttl {
		t.Errorf("tcp_user_timeout is %d ms; the TTL is %d s", timeout, ttl)
	}
	for _, setting := range []string{"idle_session_timeout", "statement_timeout", "idle_in_transaction_session_timeout"} {
		if n := ask(setting); n != 0 {
			t.Errorf("%s is %d; the session would end by it", setting, n)
		}
	}
}
