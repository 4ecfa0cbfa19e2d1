package postgres_test

import (
	"testing"
	"time"
)

// Nobody waited when the session ended, so nobody remembers the lease but the table;
// and the holder, which puts its row back if somebody has deleted that as well.
func TestNewcomerWaitsForALeaseThatWasNotReleased(t *testing.T) {
	t.Parallel()
	for name, sql := range map[string]string{
		"the row is there": `select pg_terminate_backend(ring_pid), pg_terminate_backend(work_pid) from $schema.nodes where name = $1`,
		"the row is gone": `with row as (delete from $schema.leases)
			select pg_terminate_backend(ring_pid), pg_terminate_backend(work_pid) from $schema.nodes where name = $1`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, sharedServer(t), forever)
			holder := w.open(w.server.URL(), "holder")
			l := w.acquire(holder, "id")
			w.adminExec(sql, holder.Node())
			w.receive(l.Done(), "the holder is told")
			w.logs("there is a session at the server again")
			next := w.queue(w.open(w.server.URL(), "newcomer"), "id")
			next.stillWaits()
			w.release(l)
			next.lease()
		})
	}
}

// Who takes over has looked, and is about to say that the session has run out. The
// holder has renewed it in the meantime.
func TestHeartbeatAtTheLastMomentCounts(t *testing.T) {
	t.Parallel()
	k := newContest(t, direct)
	if err := k.nodes[1].BuryTooLate(k.holder); err != nil {
		t.Fatal(err)
	}
	if n := k.admin("select count(*) from $schema.leases where id = 'id' and not released"); n != 1 {
		t.Error("what the holder has is free")
	}
	if k.log.has("put back what is ours") {
		t.Error("the holder's session was ended")
	}
	k.next.stillWaits()
	k.isHeld(k.lease)
}

// Nor is a TTL believed that somebody has made shorter. The holder puts it back.
func TestTTLMadeShorterByHandIsNotBelieved(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharedServer(t), 4*time.Second)
	l := w.acquire(w.open(w.server.URL(), "holder"), "id")
	next := w.queue(w.open(w.server.URL(), "next"), "id")
	w.adminExec("update $schema.nodes set ttl_ms = 1; update $schema.leases set ttl_ms = 1")
	w.adminExec("select pg_notify($1, 'ring')", w.nodes[0].Channel()) // all look
	w.eventually("the holder has put its TTL back", func() bool {
		return w.admin("select count(*) from $schema.nodes where ttl_ms = $1", w.ttl.Milliseconds()) == 2
	})
	next.stillWaits()
	w.isHeld(l)
}
