package claims

// pursue takes the claims of this node one step further. It returns whether it
// changed something that can have consequences.
func (m *Machine) pursue(now Instant, r *record) bool {
	for _, o := range r.own {
		switch {
		case o.token == 0:
			if m.mode.elected(r, o) {
				m.win(now, r, o)
				return true
			}
		case m.mode.hold(now, r, o):
			return true
		}
	}
	return false
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

// handOut gives the token to the program, for the first time with the lease.
func (m *Machine) handOut(r *record, o *ownClaim) {
	o.shown = o.token
	m.events = append(m.events, Event{Kind: Granted, ID: r.id, Claim: o.Claim, Token: o.token, Since: HLC(o.won).Time()})
}

// giveBack returns the votes that a waiting claim of this node was recalled
// from and those for claims that are no more (rule 10).
func (m *Machine) giveBack(r *record) {
	for i := range r.links {
		p, l := m.peers[i], &r.links[i]
		if p == nil || !p.inView || l.state == nil || l.state.Vote.Claim.Node != m.cfg.Self {
			continue
		}
		vote := l.state.Vote
		o := r.ownClaim(vote.Claim)
		if l.gave >= vote.Epoch || o != nil && (o.token != 0 || !vote.Recall) {
			continue
		}
		l.gave = vote.Epoch
		m.send(r, p)
	}
}

func (r *record) ownClaim(c Claim) *ownClaim {
	for _, o := range r.own {
		if o.Claim == c {
			return o
		}
	}
	return nil
}
