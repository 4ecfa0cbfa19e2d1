package postgres_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"highlander"
	"highlander/internal/netproxy"
	"highlander/postgres"
	"highlander/postgres/postgrestest"
)

// contest is a holder, and others that wait, with leases that last longer than the
// test: whoever gets the id has it from the holder, or by proof of its death.
type contest struct {
	*world
	holder *postgres.Cluster
	lease  highlander.Lease
	next   *waiter
}

func newContest(t *testing.T, holderURL func(*world) string, opts ...postgres.Option) *contest {
	return newContestAt(t, sharedServer(t), holderURL, opts...)
}

// newProof is a contest at a server of its own: sessions that others end there are
// counted, and leave a doubt.
func newProof(t *testing.T, opts ...postgres.Option) *contest {
	return newContestAt(t, startServer(t), direct, opts...)
}

func newContestAt(t *testing.T, server *postgrestest.Server, holderURL func(*world) string, opts ...postgres.Option) *contest {
	w := newWorld(t, server, forever)
	k := &contest{world: w, holder: w.open(holderURL(w), "holder", opts...)}
	k.lease = w.acquire(k.holder, "id")
	k.next = w.queue(w.open(w.server.URL(), "next"), "id")
	w.acquire(w.open(w.server.URL(), "other"), "another id")
	w.eventually("the ring is closed", func() bool { return w.ringIsClosed(3) })
	return k
}

// quiet waits until the nodes have told each other nothing for a while.
func (k *contest) quiet() {
	k.Helper()
	k.eventually("it is quiet", func() bool { return !slices.ContainsFunc(k.nodes, (*postgres.Cluster).WasNotified) })
}

func direct(w *world) string { return w.server.URL() }

// isToldAndReleases has the holder told that it has lost its lease, and releases it when that has
// been shown not to be enough for others to start.
func (k *contest) isToldAndReleases() {
	k.Helper()
	k.receive(k.lease.Done(), "the holder is told")
	if err := k.lease.Err(); !errors.Is(err, highlander.ErrLeaseLost) {
		k.Errorf("the lease has ended with %v; want ErrLeaseLost", err)
	}
	k.eventually("the next one has looked, or the holder has come back before that", func() bool {
		return k.log.has("its process may be alive") || k.log.has("there is a session at the server again")
	})
	k.next.stillWaits()
	k.release(k.lease)
	if next := k.next.lease(); next.Token() <= k.lease.Token() {
		k.Errorf("token %d after %d", next.Token(), k.lease.Token())
	}
}

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

// A command may outlive highlander, for the moment that it takes to kill it.
func TestEndOfAProcessThatIsOutlivedIsNoProof(t *testing.T) {
	t.Parallel()
	k := newContest(t, direct, postgres.WithoutProof())
	k.holder.Crash()
	k.logs("the end of its connections proves nothing")
	k.next.stillWaits()
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
