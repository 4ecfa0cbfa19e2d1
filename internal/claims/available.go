package claims

import (
	"slices"
	"time"
)

// available is the mode in which a part of the cluster goes on alone when it is
// cut off: what is not in view does not count, and when two holders meet, one of
// them yields. Leases do not run out.
type available struct{ m *Machine }

func (a *available) look(Instant) {}

// joining: a node that comes starts at zero (rule 13).
func (a *available) joining(p *peer) { p.unanswered = 0 }

func (a *available) died(*peer) {}

func (a *available) keeps(*peer) bool { return false }

// tick pings all in view (rule 13). An observer pings nobody: it waits for nobody's
// votes, and may look at a cluster in quorum mode, where pings are not answered.
func (a *available) tick() {
	if a.m.cfg.Observer {
		return
	}
	for _, p := range a.m.peers {
		if p != nil && p.inView {
			a.ping(p)
		}
	}
}

func (a *available) ping(p *peer) {
	wasSilent := p.silent()
	p.unanswered++
	p.pinged++
	p.pingDue = true
	if p.silent() != wasSilent {
		a.m.touchAll()
	}
}

func (a *available) receive(_ Instant, p *peer, msg *Message) {
	if msg.Pong > p.answered && msg.Pong <= p.pinged {
		p.answered = msg.Pong
		a.m.heard(p)
	}
	if msg.Ping != 0 && p.inView {
		p.pongDue = msg.Ping
	}
}

// due: only nodes in view are pinged and answered.
func (a *available) due(p *peer) bool { return p.inView && (p.pingDue || p.pongDue != 0) }

func (a *available) say(_ Instant, p *peer, msg *Message) {
	msg.Pong = p.pongDue
	if p.pingDue {
		msg.Ping = p.pinged
	}
	p.pingDue, p.pongDue = false, 0
}

// live: of nodes in view that are not silent (rule 6).
func (a *available) live(p *peer) bool { return p.inView && !p.silent() }

func (a *available) mayVote() bool { return true }

func (a *available) claimed(*ownClaim) {}
func (a *available) dropped(*ownClaim) {}

// elected implements rule 11: the votes of all voters in view that are not
// silent; if any is passed over, more than half of the view as well.
func (a *available) elected(r *record, o *ownClaim) bool {
	if r.vote.Claim != o.Claim {
		return false
	}
	voters, votes := 1, 1
	for _, p := range a.m.peers {
		if p == nil || !p.inView || !p.voter {
			continue
		}
		voters++
		if p.silent() {
			continue
		}
		if !a.m.link(r, p).votesFor(o.Claim) {
			return false
		}
		votes++
	}
	return votes == voters || 2*votes > voters
}

// hold hands out the token when every voter that is not silent has acknowledged
// it (rule 12), and meets other holders.
func (a *available) hold(now Instant, r *record, o *ownClaim) bool {
	if o.shown != o.token && o.tokenVer != 0 && a.ackedByAll(r, o.tokenVer) {
		a.m.handOut(r, o)
		return true
	}
	return a.meetRivals(now, r, o)
}

// unfinished: a token may have to be raised (rule 16).
func (a *available) unfinished(r *record) bool {
	return slices.ContainsFunc(r.own, func(o *ownClaim) bool { return o.token != 0 && r.floor > o.token })
}

func (a *available) next() (time.Duration, bool)          { return 0, false }
func (a *available) expires(Claim) time.Duration          { return 0 }
func (a *available) support(Claim, time.Duration) Support { return Support{} }
func (a *available) excess() []string                     { return nil }
func (a *available) shared() []string                     { return nil }

func (a *available) ackedByAll(r *record, ver HLC) bool {
	for _, p := range a.m.peers {
		if p != nil && p.counts() && a.m.link(r, p).acked < ver {
			return false
		}
	}
	return true
}

// meetRivals compares this holder with the others there are (rules 14 to 16).
func (a *available) meetRivals(now Instant, r *record, o *ownClaim) bool {
	alone := true
	changed := false
	for _, c := range a.m.liveClaims(r) {
		if c.token == 0 || c.Claim == o.Claim {
			continue
		}
		alone = false
		v := o.rival(c.Claim)
		switch {
		case v == nil:
			o.rivals = append(o.rivals, rival{claim: c.Claim})
			r.changed, changed = true, true
		case !v.counted:
			if v.raised != 0 && a.ackedByAll(r, v.raised) {
				v.counted, v.votes = true, a.countVotes(r, o)
				r.changed, changed = true, true
			}
		case o.yieldsTo(v, &c):
			a.m.drop(r, o)
			a.m.events = append(a.m.events, Event{Kind: Conflict, ID: r.id, Claim: o.Claim})
			return true
		}
	}
	if alone {
		return a.standAlone(now, r, o)
	}
	return changed
}

func (o *ownClaim) rival(c Claim) *rival {
	for i := range o.rivals {
		if o.rivals[i].claim == c {
			return &o.rivals[i]
		}
	}
	return nil
}

// countVotes counts the newest States whose vote is for o, whatever was given
// back (rule 14).
func (a *available) countVotes(r *record, o *ownClaim) int {
	votes := 0
	if r.vote.Claim == o.Claim {
		votes++
	}
	for _, p := range a.m.peers {
		if p == nil || !p.counts() {
			continue
		}
		if l := a.m.link(r, p); l.state != nil && l.state.Vote.Claim == o.Claim {
			votes++
		}
	}
	return votes
}

// yieldsTo says whether o has the lower (votes, winning token) of the two, once
// both numbers are known (rule 15).
func (o *ownClaim) yieldsTo(v *rival, c *liveClaim) bool {
	i := slices.IndexFunc(c.tallies, func(t Tally) bool { return t.Rival == o.Claim })
	if i < 0 {
		return false
	}
	if theirs := c.tallies[i].Votes; v.votes != theirs {
		return v.votes < theirs
	}
	if o.won != c.won {
		return o.won < c.won
	}
	return c.before(o.Claim)
}

// standAlone forgets the rivals that are gone and raises the token above all
// that were heard of, at most once a tick (rule 16).
func (a *available) standAlone(now Instant, r *record, o *ownClaim) bool {
	changed := false
	if len(o.rivals) > 0 {
		o.rivals = nil
		r.changed, changed = true, true
	}
	if r.floor > o.token && o.raisedAt != a.m.ticks {
		a.m.takeToken(now, r, o)
		changed = true
	}
	return changed
}
