package postgres

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// What a node knows of the other sessions. A session is over when its holder says
// so, when there is proof that its process is dead (death.go), or when it was not
// renewed for its TTL, by the clock here and as seen in one session of our own:
// then its leases have run out by its own clock, which began to count before the
// renewal was sent. A session that has vanished proves nothing: somebody may have
// ended it, while the process goes on, and its child stops.

const (
	// The counters come first: who is alive after that has not been counted.
	countEnds = `select sessions_abandoned, sessions_fatal, sessions_killed, coalesce(stats_reset, 'epoch') from pg_stat_database where datname = current_database()`

	// The rows of leases and the places in queues remember sessions whose row in nodes
	// is gone.
	listNodes = `select session, name, ttl_ms, beat, direct, local, work_pid, ring_pid from $schema.nodes
		union all
		select session, min(node), max(ttl_ms), -1, false, false, 0, 0 from $schema.leases l
		where not released and not exists (select from $schema.nodes n where n.session = l.session) group by session
		union all
		select distinct session, 'of session ' || session, 0, -1, false, false, 0, 0 from $schema.waiters w
		where not exists (select from $schema.nodes n where n.session = w.session) and not exists (select from $schema.leases l where l.session = w.session and not released)`

	listLocks = `select objid::bigint, pid from pg_locks where locktype = 'advisory' and classid::bigint = $1 and objsubid = 1 and granted and mode = 'ExclusiveLock'
		and database = (select oid from pg_database where datname = current_database())`
)

// ends are how sessions of the database have ended until now.
type ends struct {
	abandoned, fatal, killed int64
	reset                    time.Time
}

func (e *ends) scan(row pgx.Row) error {
	return row.Scan(&e.abandoned, &e.fatal, &e.killed, &e.reset)
}

// peer is another session, or what is left of it.
type peer struct {
	session int64
	name    string
	ttl     time.Duration // never less than our own, nor than it was seen before: somebody may have changed the row by hand
	beat    int64
	link
	pids [2]int32 // of the backends of work and ring

	seen  time.Duration // when this beat was seen first
	alive bool          // it had both its locks when it was seen last, or before its working connection was seen to have ended
	ends  ends          // counted then
}

// millis returns a TTL from a row, and never more than a node can have.
func millis(ms int64) time.Duration {
	return time.Duration(min(max(ms, 0), maxTTL.Milliseconds())) * time.Millisecond
}

// runsOut is when the leases of a session are over that is not renewed any more.
func (p *peer) runsOut() time.Duration { return p.seen + p.ttl }

// lockHeld is the lock of a connection of a session.
type lockHeld struct {
	object int64
	pid    int32
}

// sight is what is seen at one moment.
type sight struct {
	ends  ends
	peers []peer
	locks []lockHeld
}

func (v *sight) addTo(b *batch) {
	b.add(countEnds).QueryRow(v.ends.scan)
	collect(b.add(listNodes), &v.peers, func(rows pgx.Rows, p *peer) error {
		var ttl int64
		if err := rows.Scan(&p.session, &p.name, &ttl, &p.beat, &p.direct, &p.local, &p.pids[0], &p.pids[1]); err != nil {
			return err
		}
		p.ttl = millis(ttl)
		return nil
	})
	collect(b.add(listLocks, int64(b.s.c.sessionClass())), &v.locks, func(rows pgx.Rows, l *lockHeld) error {
		return rows.Scan(&l.object, &l.pid)
	})
}

// newServer forgets what was seen in an earlier session: the server may have been
// another one, or have forgotten what it had written.
func (n *node) newServer() { n.peers, n.gone, n.look = nil, nil, true }

// distrust notes that there was a fail-over: what was granted right before may not
// have been replicated, so that the new server shows an older lease, which is over.
// The holder has its child stopped when a TTL has passed, or comes and says so.
func (n *node) distrust(s *session) {
	if slices.ContainsFunc(n.old, func(o *session) bool { return o.server.history != s.server.history }) {
		n.trusted = n.clock() + n.c.ttl
		n.c.log.Info("another server has taken over, and may have forgotten the last leases; taking none for a TTL", "ttl", n.c.ttl)
	}
}

// see takes in what was seen just now, and turns the ring to who is before us.
func (n *node) see(ctx context.Context, s *session, v sight) error {
	now := n.clock()
	locked := map[int64]bool{}
	for _, l := range v.locks {
		locked[l.object] = true
	}
	peers := map[int64]*peer{}
	var ring []int64
	for _, p := range v.peers {
		if p.session == s.number {
			continue
		}
		p.seen, p.ttl = now, max(p.ttl, n.c.ttl)
		if known := n.peers[p.session]; known != nil {
			p.ttl = max(p.ttl, known.ttl)
			if p.beat == known.beat {
				p.seen = known.seen
			}
		}
		work, ringObject := int64(uint32(n.c.workKey(p.session))), int64(uint32(n.c.ringKey(p.session)))
		p.witness(n.peers[p.session], locked[work], locked[ringObject], v.ends)
		if locked[work] {
			ring = append(ring, p.session)
		}
		peers[p.session] = &p
	}
	n.peers = peers
	if peers[s.turned] != nil && !slices.Contains(ring, s.turned) {
		return nil // it has just ended, and the ring is about to say so: do not break that off
	}
	return n.turnRing(ctx, s, before(ring, s.number))
}

// witness notes how many sessions had ended when both connections of a peer were
// there. What was noted before stays when the working one has gone since: this may
// be the look right after its death, before the ring's word of it is dealt with.
func (p *peer) witness(known *peer, work, ring bool, counted ends) {
	switch {
	case work && ring:
		p.alive, p.ends = true, counted
	case !work && known != nil:
		p.alive, p.ends = known.alive, known.ends
	}
}

// before returns the session before one in the ring of all; zero if there is no
// other.
func before(sessions []int64, one int64) int64 {
	if len(sessions) == 0 {
		return 0
	}
	slices.Sort(sessions)
	i, _ := slices.BinarySearch(sessions, one)
	return sessions[(i+len(sessions)-1)%len(sessions)]
}
