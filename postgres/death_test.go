package postgres_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"highlander/internal/netproxy"
	"highlander/postgres"
	"highlander/postgres/postgrestest"
)

func TestTerminatedSessionIsNoProofOfDeath(t *testing.T) {
	t.Parallel()
	for name, sql := range map[string]string{
		"the working one": `select pg_terminate_backend(work_pid) from $schema.nodes where name = $1`,
		"both":            `select pg_terminate_backend(ring_pid), pg_terminate_backend(work_pid) from $schema.nodes where name = $1`,
	} {
		t.Run(name, func(t *testing.T) {
			k := newContest(t, direct)
			k.adminExec(sql, k.holder.Node())
			k.isToldAndReleases()
		})
	}
}

// A session without its locks is none, whatever has become of them.
func TestSessionThatHasLostItsLocksIsGivenUp(t *testing.T) {
	t.Parallel()
	k := newContest(t, direct)
	if _, err := k.holder.Ask(t.Context(), "select pg_advisory_unlock_all()::text"); err != nil {
		t.Fatal(err)
	}
	k.adminExec("select pg_notify($1, 'ring')", k.holder.Channel()) // all look
	k.logs("advisory locks; it took")
	k.logs("kept the leases through a break of the connection")
	k.next.stillWaits()
	k.isHeld(k.lease)
}

// The ring's connection alone is nothing that others depend on, but who ends it
// means the node.
func TestTerminatedRingTakesTheLeaseAway(t *testing.T) {
	t.Parallel()
	k := newContest(t, direct)
	k.adminExec(`select pg_terminate_backend(ring_pid) from $schema.nodes where name = $1`, k.holder.Node())
	k.isToldAndReleases()
}

// A proxy that ends, as a sidecar does that is restarted, looks to the server as a
// dead process does. The holder goes on in another session.
func TestBrokenProxyIsNoProofOfDeath(t *testing.T) {
	t.Parallel()
	var proxy *netproxy.Proxy
	k := newContest(t, func(w *world) string {
		proxy = w.newProxy()
		return w.behind(proxy)
	})
	proxy.Break()
	k.logs("kept the leases through a break of the connection")
	k.next.stillWaits()
	k.isHeld(k.lease)
	k.release(k.lease)
	k.next.lease()
}

func TestHolderBehindAProxyThatIsGoneMayBeAlive(t *testing.T) {
	t.Parallel()
	var proxy *netproxy.Proxy
	k := newContest(t, func(w *world) string {
		proxy = w.newProxy()
		return w.behind(proxy)
	})
	proxy.Close()
	k.logs("the end of its connections proves nothing")
	k.next.stillWaits()
	k.isHeld(k.lease)
}

func TestCrashIsProofOfDeath(t *testing.T) {
	t.Parallel()
	k := newProof(t)
	k.holder.Crash()
	k.next.lease()
	k.logs("the process of a node has died; taking over")
}

// The successor looks around, at a dead peer, before it comes to deal with the death.
func TestLookRightAfterADeathDoesNotCostTheProof(t *testing.T) {
	t.Parallel()
	k := newProof(t)
	all := k.nodes[1:] // the ring decides which of them hears of it
	var busy sync.WaitGroup
	for _, c := range all {
		busy.Go(func() {
			if _, err := c.Ask(t.Context(), "select pg_sleep(0.5)::text"); err != nil {
				t.Error(err)
			}
		})
	}
	k.eventually("both are busy", func() bool {
		return k.admin("select count(*) from pg_stat_activity where query = 'select pg_sleep(0.5)::text' and state = 'active'") >= len(all)
	})
	k.adminExec("select pg_notify($1, 'ring')", k.holder.Channel())
	k.holder.Crash()
	busy.Wait()
	k.next.lease()
}

// Across a network, the backend of the ring looks at its socket by itself.
func TestCrashAcrossANetworkIsProofOfDeath(t *testing.T) {
	t.Parallel()
	k := newProof(t, postgres.AcrossANetwork())
	k.quiet()
	k.holder.Crash()
	k.next.lease()
	k.logs("the process of a node has died; taking over")
}

// A firewall answers what the server sends with a reset, and the client hears nothing.
func TestResetByTheNetworkIsNoProofOfDeath(t *testing.T) {
	t.Parallel()
	for name, provoke := range map[string]func(k *contest){
		"of a notification": func(k *contest) {
			k.adminExec("select pg_notify($1, 'ring')", k.holder.Channel())
		},
		"of a notification, and of what the ring has waited for": func(k *contest) {
			if err := k.nodes[2].Close(); err != nil { // the last is before the first in the ring
				k.Error(err)
			}
		},
		"of an answer": func(k *contest) { k.start(k.holder, "a third id") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var wall *firewall
			k := newContest(t, func(w *world) string {
				wall = w.newFirewall()
				return wall.url
			}, postgres.AcrossANetwork())
			k.quiet()
			wall.reject()
			provoke(k)
			k.logs("its process may be alive")
			k.next.stillWaits()
			k.isHeld(k.lease)
		})
	}
}

// A command may outlive highlander, for the moment that it takes to kill it.
func TestEndOfAProcessThatIsOutlivedIsNoProof(t *testing.T) {
	t.Parallel()
	k := newContest(t, direct, postgres.WithoutProof())
	k.holder.Crash()
	k.logs("the end of its connections proves nothing")
	k.next.stillWaits()
}

// What others in the same database do does not stand in for the end of a process that
// goes on in another session.
func TestSessionGivenUpIsNoProofOfDeath(t *testing.T) {
	t.Parallel()
	k := newContest(t, direct)
	k.quiet()
	for range 3 {
		k.asAdmin(func(_ context.Context, conn *pgx.Conn) error { return conn.PgConn().Conn().Close() })
	}
	k.holder.LoseSession()
	k.logs("kept the leases through a break of the connection")
	k.next.stillWaits()
	k.isHeld(k.lease)
}

// Nor does TLS say that it is over, when the ring fails on a server that has nothing
// against either connection.
func TestSessionGivenUpOverTLSIsNoProofOfDeath(t *testing.T) {
	t.Parallel()
	k := newContestAt(t, startServer(t, "ssl = on"), func(w *world) string {
		w.adminExec("create role holder login password 'secret'; grant create on database app to holder")
		w.adminExec("alter default privileges for role holder grant all on schemas to app; alter default privileges for role holder grant all on tables to app")
		w.adminExec("grant execute on function pg_advisory_lock_shared(bigint) to app, holder")
		return strings.Replace(w.server.TLSURL(), postgrestest.User+":", "holder:", 1)
	}, postgres.AcrossANetwork())
	k.quiet()
	k.adminExec("alter role holder nologin")
	k.adminExec("revoke execute on function pg_advisory_lock_shared(bigint) from public, holder")
	k.logs("permission denied for function pg_advisory_lock_shared")
	k.logs("no session at the server; trying for as long as it takes")
	k.release(k.acquire(k.nodes[1], "a third id")) // it had the time to see an end
	k.adminExec("alter role holder login; grant execute on function pg_advisory_lock_shared(bigint) to holder")
	k.logs("kept the leases through a break of the connection")
	k.next.stillWaits()
	k.isHeld(k.lease)
}
