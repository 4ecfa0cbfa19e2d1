package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"highlander/internal/retry"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Whose process is dead holds nothing any more, and nobody has to wait for its
// leases to run out. This is the proof:
//
//   - Nothing stood between it and the server that could have ended its
//     connections: the addresses at both ends are the same (linkOf).
//   - Both its connections have ended within a moment, and neither by an
//     administrator (pg_terminate_backend), who is counted as sessions_killed,
//     but because the client's end was closed: sessions_abandoned, or
//     sessions_fatal where the server noticed as it wrote. A process that lives
//     does not close them while it has leases (wire).
//   - It was not the network that said so. A firewall, or a machine that has taken
//     over the address, may answer what the server sends with a reset: then the
//     client has not heard anything, and runs. So unless no network is in between
//     (link.local), nothing may have made the server send on either connection: no
//     notification was on its way when the working one ended, and the backend of the
//     ring has found out by itself, by looking at its socket. That looks often enough
//     for both to end within a moment, and sends nothing while it is blocked. An answer
//     to the node's own request may have been met by a reset as well, but only
//     that on the working connection.
//   - All that was seen by one session of ours, so the server did not end them by a
//     crash or a restart either.
//
// PostgreSQL 15 and later have counted the end of a session before they take it
// off pg_stat_activity; 14 counts some time later, so there is no proof with it.

const (
	// A process is dead if both its connections have ended within this: counted from
	// the end of the working one, or where the ring had to be woken from that.
	deathWithin = 250 * time.Millisecond

	// How often the backend of the ring looks at its socket.
	lookAtSocket = 25 * time.Millisecond

	// What the server has sent this long ago may have been answered by a reset just
	// now, and no earlier. That takes a network some milliseconds, and a server that is
	// busy the time until the backends of the one and of the other had their turns.
	answeredWithin = time.Second
)

const countsEndsInTime = 150000

const (
	// The connection in the ring is blocked, and its backend does not look at the
	// socket, or not at once: this makes it look. If the process lives, it only begins
	// anew. As it makes the server send, it is only for those whose connections no
	// network can end.
	wakeRing = `select pg_cancel_backend(pid) from pg_locks where locktype = 'advisory' and classid::bigint = $1 and objid::bigint = $2 and objsubid = 1
		and granted and mode = 'ExclusiveLock' and database = (select oid from pg_database where datname = current_database())`

	countBackends = `select count(*) from pg_stat_activity where pid = any($1)`

	// The server tells one backend after the other of a notification, and may have
	// told the peer's and not ours yet. But they come in order: with the answer to this
	// comes what was sent to anybody before.
	tellMyself = `select pg_notify($1, '')`

	nodeIsThere = `select count(*) from $schema.nodes where session = $1`
)

// seeEnds looks into the sessions of which the ring says that they have ended.
func (n *node) seeEnds(ctx context.Context, s *session) error {
	for len(n.gone) > 0 {
		g := n.gone[0]
		if err := n.seeEnd(ctx, s, g); err != nil {
			return err
		}
		n.gone = n.gone[1:]
		n.look = true
		if s.turned == g.session {
			s.turned = 0 // the ring waits to be told
		}
	}
	return nil
}

func (n *node) seeEnd(ctx context.Context, s *session, g gone) error {
	p := n.peers[g.session]
	if p == nil {
		return nil // it has said goodbye
	}
	ctx, cancel := context.WithTimeout(ctx, n.c.opTimeout())
	defer cancel()
	doubt, err := n.doubtDeath(ctx, s, p, g.at)
	switch {
	case err != nil:
		return fmt.Errorf("look whether node %s is dead: %w", p.name, err)
	case errors.Is(doubt, errLeft):
		return nil
	case doubt != nil:
		n.c.log.Info("the session of a node has ended, and its process may be alive; waiting for its leases to run out",
			"peer", p.name, "because", doubt, "in", (p.runsOut() - n.clock()).Round(time.Millisecond))
		return nil
	}
	n.c.log.Info("the process of a node has died; taking over", "peer", p.name)
	return n.bury(ctx, s, p, true)
}

// errLeft is a node that has said goodbye.
var errLeft = errors.New("it has left")

// doubtDeath returns what stands against the death of a peer whose working
// connection was seen to have ended at that time; nil if it is proved.
func (n *node) doubtDeath(ctx context.Context, s *session, p *peer, at time.Duration) (doubt, err error) {
	switch {
	case s.server.version < countsEndsInTime:
		return errors.New("the server is older than PostgreSQL 15"), nil
	case !p.direct:
		return errors.New("the end of its connections proves nothing: there is a proxy or a translation of addresses before the server, or something outlives its process"), nil
	case !p.alive:
		return errors.New("it was not seen alive before"), nil
	}
	if p.local {
		if doubt, err := n.wakeRingOf(ctx, s, p); doubt != nil || err != nil {
			return doubt, err
		}
	}
	asked := n.clock()
	for first := true; ; first = false {
		var there, locks, backends int
		var now ends
		b := s.newBatch()
		if first && !p.local {
			b.add(tellMyself, s.ownChannel())
		}
		b.add(nodeIsThere, p.session).QueryRow(func(row pgx.Row) error { return row.Scan(&there) })
		b.add(countLocks, int64(n.c.sessionClass()), n.c.objects(p.session)).QueryRow(func(row pgx.Row) error { return row.Scan(&locks) })
		b.add(countBackends, p.pids[:]).QueryRow(func(row pgx.Row) error { return row.Scan(&backends) })
		b.add(countEnds).QueryRow(now.scan) // last: who is off by then has been counted
		switch err := b.send(ctx); {
		case err != nil:
			return nil, err
		case there == 0:
			return errLeft, nil
		case first && !p.local && provoked(s.notedAt, at):
			return errors.New("the server had just sent it a notification, which a network may have answered with a reset"), nil
		case !p.local && n.clock() > at+deathWithin, n.clock() > asked+deathWithin && locks+backends > 0:
			return errors.New("one of its connections is still there, or was for too long"), nil
		case locks == 0 && backends == 0:
			return p.ends.doubt(now), nil
		}
		if !retry.Sleep(ctx, time.Millisecond) {
			return nil, context.Cause(ctx)
		}
	}
}

// provoked reports whether a notification may have been what ended a connection:
// everybody gets the same ones. The last has come here at noted, read at the latest
// with the answer to tellMyself, which was sent after the end.
func provoked(noted, end time.Duration) bool { return noted > 0 && noted > end-answeredWithin }

func (n *node) wakeRingOf(ctx context.Context, s *session, p *peer) (doubt, err error) {
	_, err = s.work.Exec(ctx, wakeRing, int64(n.c.sessionClass()), n.c.objects(p.session)[1])
	if pgErr := (*pgconn.PgError)(nil); errors.As(err, &pgErr) && pgErr.Code == codeInsufficientPrivilege {
		return errors.New("it has another role, whose sessions this one may not signal"), nil
	}
	return nil, err
}

// doubt says what stands against two sessions having been ended by their client,
// if they were there at the earlier count and are gone at the later.
func (e ends) doubt(later ends) error {
	abandoned, fatal, killed := later.abandoned-e.abandoned, later.fatal-e.fatal, later.killed-e.killed
	switch {
	case !later.reset.Equal(e.reset):
		return errors.New("somebody has reset the statistics")
	case killed != 0:
		return fmt.Errorf("%d sessions were ended by an administrator", killed)
	case abandoned < 1 || abandoned+fatal < 2:
		return fmt.Errorf("%d sessions were abandoned by their clients and %d ended by an error", abandoned, fatal)
	}
	return nil
}
