package claims

import "slices"

// pursue takes the claims of this node one step further. It returns whether it
// changed something that can have consequences.
func (m *Machine) pursue(now Instant, r *record) bool {
	for _, o := range r.own {
		switch {
		case o.token == 0:
			if m.elected(r, o) {
				m.win(now, r, o)
				return true
			}
		case m.showToken(r, o), m.meetRivals(now, r, o):
			return true
		}
	}
	return false
}

// elected implements rule 11: the votes of all voters in view that are not
// silent; if any is passed over, more than half of the view as well.
func (m *Machine) elected(r *record, o *ownClaim) bool {
	if r.vote.Claim != o.Claim {
		return false
	}
	voters, votes := 1, 1
	for _, p := range m.peers {
		if p == nil || !p.inView || !p.voter {
			continue
		}
		voters++
		if p.silent() {
			continue
		}
		if !m.link(r, p).votesFor(o.Claim) {
			return false
		}
		votes++
	}
	return votes == voters || 2*votes > voters
}

// votesFor says whether the peer's vote is for c and was not given back.
func (l *link) votesFor(c Claim) bool {
	return l.state != nil && l.state.Vote.Claim == c && l.state.Vote.Epoch > l.gave
}

// win takes a token above all that were heard of.
func (m *Machine) win(now Instant, r *record, o *ownClaim) {
	m.takeToken(now, r, o)
	o.won = o.token
}

func (m *Machine) takeToken(now Instant, r *record, o *ownClaim) {
	m.clock.merge(HLC(r.floor))
	o.token = uint64(m.clock.next(now))
	o.tokenVer, o.raisedAt = 0, m.ticks
	r.floor = o.token
	r.changed = true
}

// showToken hands out the token, for the first time with the lease, when every
// voter that is not silent has acknowledged it (rule 12).
func (m *Machine) showToken(r *record, o *ownClaim) bool {
	if o.shown == o.token || o.tokenVer == 0 || !m.ackedByAll(r, o.tokenVer) {
		return false
	}
	o.shown = o.token
	m.events = append(m.events, Event{Kind: Granted, ID: r.id, Claim: o.Claim, Token: o.token, Since: HLC(o.won).Time()})
	return true
}

func (m *Machine) ackedByAll(r *record, ver HLC) bool {
	for _, p := range m.peers {
		if p != nil && p.counts() && m.link(r, p).acked < ver {
			return false
		}
	}
	return true
}

// meetRivals compares this holder with the others there are (rules 14 to 16).
func (m *Machine) meetRivals(now Instant, r *record, o *ownClaim) bool {
	alone := true
	changed := false
	for _, c := range m.liveClaims(r) {
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
			if v.raised != 0 && m.ackedByAll(r, v.raised) {
				v.counted, v.votes = true, m.countVotes(r, o)
				r.changed, changed = true, true
			}
		case o.yieldsTo(v, &c):
			m.drop(r, o)
			m.events = append(m.events, Event{Kind: Conflict, ID: r.id, Claim: o.Claim})
			return true
		}
	}
	if alone {
		return m.standAlone(now, r, o)
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
func (m *Machine) countVotes(r *record, o *ownClaim) int {
	votes := 0
	if r.vote.Claim == o.Claim {
		votes++
	}
	for _, p := range m.peers {
		if p == nil || !p.counts() {
			continue
		}
		if l := m.link(r, p); l.state != nil && l.state.Vote.Claim == o.Claim {
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
func (m *Machine) standAlone(now Instant, r *record, o *ownClaim) bool {
	changed := false
	if len(o.rivals) > 0 {
		o.rivals = nil
		r.changed, changed = true, true
	}
	if r.floor > o.token && o.raisedAt != m.ticks {
		m.takeToken(now, r, o)
		changed = true
	}
	return changed
}
