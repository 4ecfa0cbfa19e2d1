package postgres_test

import (
	"errors"
	"slices"
	"testing"

	"highlander"
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
