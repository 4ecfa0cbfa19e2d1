package claims

import "time"

// tie is what binds this node and a peer in quorum mode.
type tie struct {
	// As a voter, of the votes for the peer's claims.
	until time.Duration // they are bound until then; zero: no beat counts
	bind  uint64        // grows each time that they are dropped
	back  time.Duration // of the beat to be answered, zero if none counted
	owed  bool          // an answer is due

	// As a claimant, of the peer's votes.
	bound uint64        // the highest bind that it has told
	due   bool          // a beat is to be sent
	sent  time.Duration // the last beat
	acked time.Duration // the newest that was counted
	echo  time.Duration // its newest stamp

	heard time.Duration // when its last message came
}

// beat has a beat sent to all voters in view (rule Q2).
func (q *quorum) beat() {
	q.beatAt = q.now + q.m.cfg.TTL/4
	for _, p := range q.m.peers {
		if p != nil {
			p.tie.due = true
		}
	}
}

func (q *quorum) joining(p *peer) {
	q.welcome(p)
	p.tie.due = true
}

// welcome is called before p is present. It may have the name of another, whose
// votes count no more then.
func (q *quorum) welcome(p *peer) {
	q.renewAll()
	q.counted = false
}

func (q *quorum) receive(now Instant, p *peer, msg *Message) {
	if !q.present(p) {
		q.welcome(p)
	}
	p.tie.heard = q.now
	p.tie.bound = max(p.tie.bound, msg.Bind)
	if msg.Back.Stamp != 0 {
		q.answered(p, msg.Back)
	}
	if msg.Beat.K != 0 && !q.m.cfg.Observer {
		q.answer(p, msg.Beat)
	}
}

// answer counts a beat if the node that sent it hears this one: the stamp that
// it echoes is not older than the TTL. Nor is the beat itself, then.
func (q *quorum) answer(p *peer, b Beat) {
	p.tie.owed = true
	if b.Echo > q.now || b.Echo < q.now-q.m.cfg.TTL {
		return
	}
	if p.tie.until == 0 {
		q.m.touchAll() // its claims are live from now on
	}
	p.tie.until = q.now + q.m.cfg.TTL
	p.tie.back = max(p.tie.back, b.K)
	q.expireAt = min(q.expireAt, p.tie.until)
}

// answered takes the answer to a beat.
func (q *quorum) answered(p *peer, b Back) {
	if b.K == 0 { // not counted: try again with this stamp
		p.tie.due = p.tie.due || b.Stamp != p.tie.echo
		p.tie.echo = b.Stamp
		return
	}
	p.tie.echo = max(p.tie.echo, b.Stamp)
	if b.K <= p.tie.acked || b.K > p.tie.sent {
		return
	}
	p.tie.acked = b.K
	for _, r := range q.awaiting {
		r.awaiting = false
		q.m.touch(r)
	}
	q.awaiting = q.awaiting[:0]
}

// expireBeats frees the votes for the claims of nodes whose beats have run out.
func (q *quorum) expireBeats(now Instant) {
	q.expireAt = never
	for _, p := range q.m.peers {
		switch {
		case p == nil || p.tie.until == 0:
		case q.now >= p.tie.until:
			q.free(now, p)
		default:
			q.expireAt = min(q.expireAt, p.tie.until)
		}
	}
}

// free drops the votes for the claims of p (rule Q3). If they are given to it
// again they are others, under another bind.
func (q *quorum) free(now Instant, p *peer) {
	p.tie.until = 0
	p.tie.bind = uint64(q.m.clock.next(now))
	for _, r := range q.m.ids {
		if r.vote.Claim.Node == p.node {
			r.vote = Vote{Epoch: r.vote.Epoch + 1}
			r.changed = true
		}
	}
	q.m.touchAll()
}

// died: what its vote was worth stays, but it has none any more.
func (q *quorum) died(*peer) {
	q.renewAll()
	q.counted = false
}

func (q *quorum) live(p *peer) bool {
	if q.m.cfg.Observer { // no beats are sent to it
		return p.inView
	}
	return p.tie.until != 0
}

// keeps: as long as votes may be bound, here to a claim of p, or at p to one of
// this node. p counts beats while the last word of it that they echo is not older
// than a TTL, and is bound for another. Until then, it must not be forgotten what
// it was given back: an old State would show a vote that has moved.
func (q *quorum) keeps(p *peer) bool {
	return p.tie.heard != 0 && q.now < p.tie.heard+2*startup(q.m.cfg.TTL)
}

func (q *quorum) due(p *peer) bool { return p.tie.owed || q.beatDue(p) }

// beatDue: beats go to voters in view, as long as there is a claim.
func (q *quorum) beatDue(p *peer) bool { return p.tie.due && p.inView && p.voter && len(q.claims) > 0 }

// say notes when a beat is sent before it is: what counts from then on, counts
// from a moment before the voter's.
func (q *quorum) say(now Instant, p *peer, msg *Message) {
	if p.tie.bind == 0 {
		p.tie.bind = uint64(q.m.clock.next(now)) // above all that were used before it was forgotten
	}
	msg.Bind = p.tie.bind
	if q.beatDue(p) {
		p.tie.due = false
		p.tie.sent = now.Up
		msg.Beat = Beat{K: now.Up, Echo: p.tie.echo}
	}
	if p.tie.owed {
		msg.Back = Back{K: p.tie.back, Stamp: now.Up}
		p.tie.owed, p.tie.back = false, 0
	}
}
