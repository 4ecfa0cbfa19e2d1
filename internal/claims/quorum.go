package claims

import (
	"cmp"
	"slices"
	"time"
)

// quorum is the mode in which a lease takes the votes of Config.Quorum voters and
// runs out unless they renew it, so that never two are valid at once (rules Q1 to
// Q7). beat.go has what binds the votes, and this file what a claimant makes of
// them.
type quorum struct {
	m   *Machine
	now time.Duration // by Instant.Up, at the last input

	voteAt   time.Duration // from when on this node votes (rule Q5)
	voting   bool
	expireAt time.Duration // a peer's beats may run out then, but not before
	leasesAt time.Duration // the same for leases of this node
	beatAt   time.Duration // the next beat is due

	claims   map[Claim]*ownClaim // of this node
	winners  []*ownClaim         // those that have won, and some that are no more
	awaiting []*record           // whose claims may win, or be handed out, when a beat is answered

	counted bool // what follows is that of this input
	voters  []*peer
	self    bool     // this node's own vote counts
	names   []string // of all voters that are known
	doubles []string // that several of them share
}

const never = time.Duration(1<<63 - 1)

// startup is how long a node that has started votes for nobody: longer than any
// vote that it gave before can be bound, by any clock.
func startup(ttl time.Duration) time.Duration { return ttl + ttl/25 }

func newQuorum(m *Machine, now Instant) *quorum {
	return &quorum{
		m: m, now: now.Up, voteAt: now.Up + startup(m.cfg.TTL), expireAt: never, leasesAt: never,
		claims: map[Claim]*ownClaim{},
	}
}

// look sees to what has run out, before anything else happens: a process that
// was frozen must not take what has waited for it for news (rule Q3).
func (q *quorum) look(now Instant) {
	if now.Up >= q.leasesAt {
		q.renewAll() // by what was known, not by this moment: they may have run out long ago
	}
	q.now = max(q.now, now.Up)
	q.counted = false
	if q.now >= q.expireAt {
		q.expireBeats(now)
	}
	if q.now >= q.leasesAt {
		q.expireLeases()
	}
	if !q.voting && q.now >= q.voteAt {
		q.voting = true
		q.m.touchAll()
	}
	if len(q.claims) > 0 && q.now >= q.beatAt {
		q.beat()
	}
}

func (q *quorum) next() (time.Duration, bool) {
	at := min(q.expireAt, q.leasesAt)
	if !q.voting {
		at = min(at, q.voteAt)
	}
	if len(q.claims) > 0 {
		at = min(at, q.beatAt)
	}
	return at, at != never
}

func (q *quorum) mayVote() bool { return q.voting }

func (q *quorum) claimed(o *ownClaim) {
	q.claims[o.Claim] = o
	if len(q.claims) == 1 {
		q.beat()
	}
}

func (q *quorum) dropped(o *ownClaim) { delete(q.claims, o.Claim) }

func (q *quorum) unfinished(*record) bool { return false }

// tick forgets what nobody waits for any more.
func (q *quorum) tick() {
	for _, p := range q.m.peers {
		if p != nil && !p.inView {
			p.tie.owed = false // nobody could deliver the answer
		}
	}
	q.awaiting = slices.DeleteFunc(q.awaiting, func(r *record) bool {
		r.awaiting = len(r.own) > 0
		return !r.awaiting
	})
}

// count finds out whose votes count: those of voters that may be alive, but not of
// two that share a name. Of those, each may have voted for another claim (rule Q7).
func (q *quorum) count() {
	if q.counted {
		return
	}
	q.counted = true
	q.voters, q.names, q.doubles = q.voters[:0], q.names[:0], q.doubles[:0]
	q.self = !q.m.cfg.Observer
	if q.self {
		q.names = append(q.names, q.m.cfg.Name)
		q.self = !q.twin(nil, q.m.cfg.Name)
	}
	for _, p := range q.m.peers {
		if p == nil || !p.voter || (p.goodbye || p.dead) && !q.present(p) {
			continue
		}
		q.names = append(q.names, p.name)
		own := !q.m.cfg.Observer && p.name == q.m.cfg.Name
		switch {
		case !q.present(p): // no vote that it gave is worth anything
		case own || q.twin(p, p.name):
			q.doubles = append(q.doubles, p.name)
		case !p.dead:
			q.voters = append(q.voters, p)
		}
	}
	slices.Sort(q.names)
	q.names = slices.Compact(q.names)
	slices.Sort(q.doubles)
	q.doubles = slices.Compact(q.doubles)
}

// twin says whether a peer other than p has this name and may be alive.
func (q *quorum) twin(p *peer, name string) bool {
	return slices.ContainsFunc(q.m.peers, func(o *peer) bool {
		return o != nil && o != p && o.voter && o.name == name && q.present(o)
	})
}

func (q *quorum) excess() []string {
	q.count()
	if len(q.names) <= q.m.cfg.Voters {
		return nil
	}
	return slices.Clone(q.names)
}

func (q *quorum) shared() []string {
	q.count()
	return slices.Clone(q.doubles)
}

// present says whether p is in view, or was heard of so recently that a vote that
// it gave may still be bound.
func (q *quorum) present(p *peer) bool {
	return p.inView || p.tie.heard != 0 && q.now < p.tie.heard+startup(q.m.cfg.TTL)
}

// leaseEnd returns when the lease of o ends, and how many have voted for it.
// After that the first of them may vote for another: the Quorum-th last, counted
// from the sending of the last beat that it has answered (rule Q4). What it
// returns may be less than it was, when it is not known any more that a voter had
// voted; that voter has not forgotten.
func (q *quorum) leaseEnd(o *ownClaim) (end time.Duration, votes int) {
	q.count()
	var room [16]time.Duration
	sent := room[:0]
	if q.self && o.record.vote.Claim == o.Claim {
		sent = append(sent, q.now)
	}
	for _, p := range q.voters {
		if l := q.m.link(o.record, p); q.votesFor(p, l, o.Claim) {
			sent = append(sent, p.tie.acked)
		}
	}
	if len(sent) < q.m.cfg.Quorum {
		return 0, len(sent)
	}
	slices.SortFunc(sent, func(a, b time.Duration) int { return cmp.Compare(b, a) })
	ttl := q.m.cfg.TTL
	return sent[q.m.cfg.Quorum-1] + ttl - ttl/50, len(sent)
}

// votesFor says whether the vote of p is for c, was not given back, and has not
// moved since (rule Q3).
func (q *quorum) votesFor(p *peer, l *link, c Claim) bool {
	return l.votesFor(c) && l.bind == p.tie.bound
}

func (q *quorum) renew(o *ownClaim) {
	end, _ := q.leaseEnd(o)
	o.until = max(o.until, end)
}

// renewAll takes down what all votes are worth, before some of them count no
// more.
func (q *quorum) renewAll() {
	for _, o := range q.winners {
		if q.claims[o.Claim] == o {
			q.renew(o)
		}
	}
}

// elected implements rule Q4: enough votes, with more than a quarter of the TTL
// left.
func (q *quorum) elected(r *record, o *ownClaim) bool {
	end, votes := q.leaseEnd(o)
	if votes < q.m.cfg.Quorum && len(q.doubles) == 0 {
		return false
	}
	if end <= q.now+q.m.cfg.TTL/4 || len(q.names) > q.m.cfg.Voters {
		q.await(r)
		return false
	}
	o.until = end
	q.winners = append(q.winners, o)
	q.leasesAt = min(q.leasesAt, end)
	return true
}

// hold hands the lease out when Quorum voters have acknowledged its token, so
// that a later holder's is larger, and there is time left to stop in.
func (q *quorum) hold(_ Instant, r *record, o *ownClaim) bool {
	if o.shown != 0 || o.tokenVer == 0 {
		return false
	}
	q.renew(o)
	if q.acks(r, o) < q.m.cfg.Quorum || o.until-q.now <= o.stopWithin+q.m.cfg.TTL/8 {
		q.await(r)
		return false
	}
	q.m.handOut(r, o)
	return true
}

// acks counts the voters for o that have acknowledged its token.
func (q *quorum) acks(r *record, o *ownClaim) int {
	q.count()
	n := 0
	if q.self && r.vote.Claim == o.Claim {
		n++
	}
	for _, p := range q.voters {
		if l := q.m.link(r, p); q.votesFor(p, l, o.Claim) && l.acked >= o.tokenVer {
			n++
		}
	}
	return n
}

// await has r looked at when a beat is answered.
func (q *quorum) await(r *record) {
	if !r.awaiting {
		r.awaiting = true
		q.awaiting = append(q.awaiting, r)
	}
}

// expireLeases ends the leases that have run out.
func (q *quorum) expireLeases() {
	q.leasesAt = never
	winners := q.winners
	q.winners = q.winners[:0]
	for _, o := range winners {
		if q.claims[o.Claim] != o {
			continue
		}
		if q.now >= o.until {
			q.m.drop(o.record, o)
			q.m.events = append(q.m.events, Event{Kind: Expired, ID: o.record.id, Claim: o.Claim})
			continue
		}
		q.winners = append(q.winners, o)
		q.leasesAt = min(q.leasesAt, o.until)
	}
	clear(winners[len(q.winners):])
}

func (q *quorum) expires(c Claim) time.Duration {
	o := q.claims[c]
	if o == nil || o.shown == 0 {
		return 0
	}
	q.renew(o)
	return o.until
}

// Support is who keeps a lease, and who does not, by name. It changes nothing: it
// is for the log.
type Support struct {
	Votes  int      // of voters in view that have answered, this node's included
	Silent []string // in view, but they have not answered
	NoVote []string // in view, but they vote for nobody yet, or for another, or their votes do not count
	Gone   []string // not in view
}

func (q *quorum) support(c Claim, since time.Duration) (s Support) {
	o := q.claims[c]
	if o == nil {
		return s
	}
	q.count()
	switch {
	case q.self && o.record.vote.Claim == c:
		s.Votes++
	case !q.m.cfg.Observer:
		s.NoVote = append(s.NoVote, q.m.cfg.Name)
	}
	here := map[string]bool{q.m.cfg.Name: true}
	for _, p := range q.m.peers {
		if p == nil || !p.voter || !p.inView {
			continue
		}
		here[p.name] = true
		switch {
		case p.tie.acked <= since:
			s.Silent = append(s.Silent, p.name)
		case slices.Contains(q.voters, p) && q.votesFor(p, q.m.link(o.record, p), c):
			s.Votes++
		default:
			s.NoVote = append(s.NoVote, p.name)
		}
	}
	for _, name := range q.names {
		if !here[name] {
			s.Gone = append(s.Gone, name)
		}
	}
	slices.Sort(s.Silent)
	slices.Sort(s.NoVote)
	s.NoVote = slices.Compact(s.NoVote) // of two that share a name
	return s
}
