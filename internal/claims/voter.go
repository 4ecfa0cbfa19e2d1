package claims

// finish settles all that the input touched: after it, nothing would change
// without a further input.
func (m *Machine) finish(now Instant) {
	for i := 0; i < len(m.touched); i++ {
		r := m.touched[i]
		m.settle(now, r)
		r.touched = false
	}
	m.touched = m.touched[:0]
}

func (m *Machine) settle(now Instant, r *record) {
	for {
		for m.step(now, r) {
		}
		if !r.changed {
			return
		}
		m.publish(now, r)
	}
}

// step returns whether it changed something that can have consequences.
func (m *Machine) step(now Instant, r *record) bool {
	if m.voteOn(r) {
		return true
	}
	m.giveBack(r)
	return m.pursue(now, r)
}

// publish makes a new version of the State of r and sends it to all in view
// (rule 3).
func (m *Machine) publish(now Instant, r *record) {
	r.ver = m.clock.next(now)
	r.changed = false
	for _, o := range r.own {
		if o.token != 0 && o.tokenVer == 0 {
			o.tokenVer = r.ver
		}
		for i := range o.rivals {
			if o.rivals[i].raised == 0 {
				o.rivals[i].raised = r.ver
			}
		}
	}
	r.state = m.newState(r)
	for _, p := range m.peers {
		if p != nil && p.inView {
			m.send(r, p)
		}
	}
	m.wait(r)
}

func (m *Machine) newState(r *record) *State {
	s := &State{ID: r.id, Ver: r.ver, Vote: r.vote, Floor: r.floor}
	for _, o := range r.own {
		c := ClaimState{Seq: o.Seq, Stamp: o.Stamp, Token: o.token, Won: o.won, Meta: o.meta}
		for _, v := range o.rivals {
			if v.counted {
				c.Tallies = append(c.Tallies, Tally{Rival: v.claim, Votes: v.votes})
			}
		}
		s.Claims = append(s.Claims, c)
	}
	return s
}

// liveClaim is a claim that a voter takes into account.
type liveClaim struct {
	Claim
	token   uint64
	won     uint64
	meta    string
	own     bool
	tallies []Tally
}

// liveClaims returns this node's claims and those in the newest State of every
// node whose claims count (rules 6 and Q1). The result is good until the next
// call.
func (m *Machine) liveClaims(r *record) []liveClaim {
	m.live = m.live[:0]
	for _, o := range r.own {
		m.live = append(m.live, liveClaim{Claim: o.Claim, token: o.token, won: o.won, meta: o.meta, own: true})
	}
	for i := range r.links {
		p, s := m.peers[i], r.links[i].state
		if p == nil || s == nil || !m.mode.live(p) {
			continue
		}
		for _, c := range s.Claims {
			claim := Claim{Node: p.node, Seq: c.Seq, Stamp: c.Stamp}
			m.live = append(m.live, liveClaim{Claim: claim, token: c.Token, won: c.Won, meta: c.Meta, tallies: c.Tallies})
		}
	}
	return m.live
}

// bestClaim returns the holder with the highest token, or else the oldest
// claim; nil if there is none (rule 7).
func bestClaim(live []liveClaim) *liveClaim {
	var best *liveClaim
	for i := range live {
		if c := &live[i]; best == nil || c.better(best) {
			best = c
		}
	}
	return best
}

func (c *liveClaim) better(d *liveClaim) bool {
	if c.token != d.token {
		return c.token > d.token // a waiting claim has token zero
	}
	return c.before(d.Claim)
}

// voteOn moves this node's vote for r if it is free and asks for it back if it
// should move (rules 8 and 9). It returns whether it changed something.
func (m *Machine) voteOn(r *record) bool {
	if m.cfg.Observer || !m.mode.mayVote() {
		return false
	}
	live := m.liveClaims(r)
	best := bestClaim(live)
	voted := findClaim(live, r.vote.Claim)
	switch {
	case !m.voteFree(r, voted, best):
		recall := best != voted && voted.token == 0
		if recall == r.vote.Recall {
			return false
		}
		r.vote.Recall = recall
	case best != nil:
		r.vote = Vote{Epoch: r.vote.Epoch + 1, Claim: best.Claim}
	case r.vote.Claim != (Claim{}):
		r.vote = Vote{Epoch: r.vote.Epoch + 1}
	default:
		return false
	}
	r.changed = true
	return true
}

func findClaim(live []liveClaim, c Claim) *liveClaim {
	for i := range live {
		if live[i].Claim == c {
			return &live[i]
		}
	}
	return nil
}

// voteFree implements rule 8.
func (m *Machine) voteFree(r *record, voted, best *liveClaim) bool {
	switch {
	case voted == nil:
		return true
	case voted.own:
		return voted.token == 0 && best != voted
	}
	return m.link(r, m.byNode[voted.Node]).ret >= r.vote.Epoch
}
