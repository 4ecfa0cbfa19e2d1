package claims

import (
	"fmt"
	"slices"
	"time"
)

// The simulation of quorum mode: what differs from that of available mode.

func quorumProfiles() []profile {
	base := profile{
		ttl: 3 * sec, ids: 2, claims: 2, chaos: 25 * sec, bigDelay: 5 * sec, skew: sec, drift: 0.02, proof: 0.5,
		loss: 0.05, dup: 0.05, slow: 0.05, busy: 0.1, release: 0.4, restartWithin: 5 * sec, freezeFor: 9 * sec, acquire: 0.5, forgetful: true,
	}
	var all []profile
	add := func(name string, change func(p *profile)) {
		p := base
		p.name = "q-" + name
		change(&p)
		all = append(all, p)
	}
	add("clean", func(p *profile) { p.observers = 0.1; p.crash, p.restart, p.lateJoin = 0.15, 0.7, 0.3 })
	add("calm", func(p *profile) {
		p.loss, p.dup, p.slow, p.acquire, p.skew, p.chaos = 0.15, 0.15, 0.2, 2, 20*sec, 15*sec
	})
	add("race", func(p *profile) {
		p.hosts, p.ids, p.loss, p.dup, p.slow, p.busy, p.skew = 3, 1, 0.1, 0.5, 0.4, 0.3, 20*sec
		p.acquire, p.release, p.chaos = 6, 1, 20*sec
	})
	add("split", func(p *profile) { p.split, p.skew = 0.15, 20*sec })
	add("freeze", func(p *profile) { p.freeze, p.skew = 0.2, 20*sec })
	add("link", func(p *profile) { p.observers = 0.1; p.link, p.crash, p.restart = 0.4, 0.05, 0.7 })
	add("fp", func(p *profile) { p.observers = 0.1; p.flap, p.crash, p.restart, p.lateJoin = 0.5, 0.05, 0.7, 0.3 })
	// Crashed voters start again before their votes have run out.
	add("restart", func(p *profile) { p.hosts, p.crash, p.restart, p.restartWithin, p.link = 3, 0.4, 1, 1500*ms, 0.2 })
	// Crashes are proved soon, late, or several times.
	add("proof", func(p *profile) { p.proof, p.crash, p.restart, p.freeze = 1, 0.3, 0.9, 0.1 })
	// Many messages come late, some later than a TTL.
	add("late", func(p *profile) {
		p.slow, p.bigDelay, p.dup, p.split, p.freeze, p.skew = 0.4, 8*sec, 0.3, 0.05, 0.05, 20*sec
	})
	// Leases run out faster than what was lost is said again, and views change.
	add("short", func(p *profile) {
		p.ttl, p.loss, p.dup, p.slow, p.busy, p.skew = 700*ms, 0.3, 0.2, 0.3, 0.3, 20*sec
		p.link, p.flap, p.acquire, p.release, p.ids = 0.8, 0.5, 2, 0.8, 1
	})
	// Voters learn of claims at very different times.
	add("crowd", func(p *profile) {
		p.hosts, p.ids, p.loss, p.slow, p.busy, p.link, p.skew = 5, 1, 0.3, 0.7, 0.3, 0.5, 20*sec
		p.acquire, p.release, p.claims = 6, 1, 3
	})
	// The holder of a token that only few have heard of crashes, and its clock was
	// ahead of all others.
	add("skew", func(p *profile) { p.crash, p.proof, p.young, p.skew, p.hosts = 0.05, 1, 0.1, 30*sec, 7 })
	add("mix", func(p *profile) {
		p.observers = 0.1
		p.flap, p.split, p.freeze, p.link, p.crash, p.restart, p.lateJoin = 0.15, 0.06, 0.1, 0.1, 0.1, 0.8, 0.2
	})
	add("wild", func(p *profile) {
		p.observers = 0.1
		p.flap, p.split, p.freeze, p.link, p.crash, p.restart, p.lateJoin = 0.5, 0.2, 0.3, 0.3, 0.3, 0.9, 0.3
		p.restartWithin = 1500 * ms
		p.loss, p.dup, p.slow, p.busy, p.acquire, p.claims, p.ids = 0.2, 0.2, 0.2, 0.3, 2, 3, 3
	})
	add("partial", func(p *profile) { p.hosts, p.chaos, p.release, p.lastingFault = 4, 40*sec, 0.8, (*world).breakOneLink })
	return all
}

// rate is that of a clock. In quorum mode, where it matters, most are as bad as
// is promised: off by one per cent.
func (w *world) rate() float64 {
	off := w.rng.Float64() - 0.5
	if w.profile.ttl > 0 && w.chance(0.7) {
		off = float64(w.rng.IntN(2)) - 0.5
	}
	return 1 + off*w.profile.drift
}

func (w *world) chooseQuorum() {
	for i := range w.hosts {
		observer := i > 2 && w.chance(w.profile.observers)
		w.hosts[i].observer = observer
		if !observer {
			w.voters++
		}
	}
	w.quorum = w.voters/2 + 1
}

// quorate says whether enough voters run, as is always so in available mode.
func (w *world) quorate() bool {
	voters := 0
	for _, n := range w.live() {
		if n.voter {
			voters++
		}
	}
	return voters >= w.quorum
}

// amnesia says whether processes do not start again, as the clocks are so far
// apart that they might give a token below one that they had heard of before.
func (w *world) amnesia() bool {
	return w.profile.ttl > 0 && w.profile.crash > 0 && w.profile.restart == 0
}

func (w *world) stopWithin() time.Duration {
	if w.profile.ttl == 0 {
		return 0
	}
	return w.upTo(w.profile.ttl * 48 / 100)
}

func (n *simNode) hostName() string { return fmt.Sprint("host", n.host) }

// planAdvance sees that Advance is called in time, or a little late.
func (n *simNode) planAdvance() {
	up, ok := n.m.NextAdvance()
	if !ok {
		return
	}
	at := max(n.w.trueTime(n, up), n.w.now) + ms
	if n.advanceAt != 0 && n.advanceAt <= at {
		return
	}
	n.advanceAt = at
	n.w.after(at-n.w.now, func() {
		if n.advanceAt == at {
			n.whenAwake(n.advance)
		}
	})
}

func (n *simNode) advance() {
	n.advanceAt = 0
	n.input(n.m.Advance)
}

// trueTime returns when the clock of n's host shows up.
func (w *world) trueTime(n *simNode, up time.Duration) time.Duration {
	return time.Duration(float64(up-simStart.Up) / w.hosts[n.host].rate)
}

// valid says whether the lease has not run out, by the clock of its holder.
func (l *lease) valid() bool { return l.node.clock().Up < l.until }

// noteRenewals looks how long the leases of n last now.
func (n *simNode) noteRenewals() {
	if n.w.profile.ttl == 0 {
		return
	}
	for _, l := range n.leases {
		until := n.m.Expires(l.claim)
		if !l.held {
			continue
		}
		if until < l.until {
			n.w.violate("shortened", "%v of %s ends at %v, after %v was promised", l.claim, l.id, until, l.until)
		}
		if until > l.until {
			if !l.valid() {
				n.w.violate("revived", "%v of %s had run out and was renewed", l.claim, l.id)
			}
			l.until = until
			n.w.checkOnlyLease(l)
		}
	}
}

// expired: the lease has run out; a program goes on trying.
func (n *simNode) expired(l *lease) {
	w := n.w
	n.remove(l)
	w.logf("%v of %s has run out", l.claim, l.id)
	if l.held && l.valid() {
		w.violate("early", "%v of %s has not run out", l.claim, l.id)
	}
	w.expiries++
	if w.chance(0.9) {
		w.after(w.upTo(400*ms), func() { n.whenAwake(func() { n.acquire(l.id) }) })
	}
}

// checkLease: a lease that is handed out is the only one, and lasts.
func (w *world) checkLease(l *lease) {
	l.until = l.node.m.Expires(l.claim)
	if left := l.until - l.node.clock().Up; left <= l.stopWithin {
		w.violate("short", "%v of %s lasts %v, stopping may take %v", l.claim, l.id, left, l.stopWithin)
	}
	w.checkOnlyLease(l)
}

// checkOnlyLease: never two valid leases at once (promise 4). That of a process
// that has crashed counts until it runs out or the crash is proved.
func (w *world) checkOnlyLease(l *lease) {
	others := append(w.leases(l.id, func(o *lease) bool { return o.held && o != l && o.valid() }), w.ghostsOf(l.id)...)
	if len(others) > 0 {
		w.violate("two-leases", "%v of %s besides%s", l.claim, l.id, names(others))
	}
}

func (w *world) ghostsOf(id string) []*lease {
	var found []*lease
	for _, l := range w.ghosts {
		if l.id == id && l.valid() {
			found = append(found, l)
		}
	}
	return found
}

// patience is how long it takes at most, while all is well but for the messages,
// until somebody holds.
func (w *world) patience() time.Duration {
	if w.profile.ttl > 0 {
		return 15 * sec // nobody votes at first, and then many that are slow may have to give votes back
	}
	return 8 * sec
}

// checkTurn: first come, first served (promise 3), but only of claims that all
// voters know: others may win while a message is under way.
func (w *world) checkTurn(l, o *lease) {
	if w.quiet && w.settledCalm() && w.now-o.askedAt > 4*sec && o.claim.before(l.claim) {
		w.violate("order", "%v of %s holds before %v, which is older", l.claim, l.id, o.claim)
	}
}

// checkTokenOrder: tokens grow in the order of the grants (promise 5).
func (w *world) checkTokenOrder(l *lease, token uint64) {
	if token <= w.granted[l.id] {
		w.violate("token", "%v of %s got %d, not above %d", l.claim, l.id, token, w.granted[l.id])
	}
	w.granted[l.id] = token
}

// noteCrash keeps the leases of n, whose child may live on, and has others told
// that it is gone, if that is proved: late, again, or not at all.
func (w *world) noteCrash(n *simNode) {
	if w.profile.ttl == 0 {
		return
	}
	for _, l := range n.leases {
		if l.held {
			w.ghosts = append(w.ghosts, l)
		}
	}
	if !w.chance(w.profile.proof) {
		return
	}
	w.after(w.upTo(500*ms), func() {
		w.logf("the end of %v is proved", n)
		w.ghosts = slices.DeleteFunc(w.ghosts, func(l *lease) bool { return l.node == n })
		for _, o := range w.nodes {
			for range w.rng.IntN(3) {
				w.after(w.proofDelay(), func() {
					if o != n {
						o.whenAwake(func() { o.learnDeath(n) })
					}
				})
			}
		}
	})
}

func (w *world) proofDelay() time.Duration {
	if w.chance(0.2) {
		return w.upTo(10 * sec)
	}
	return w.upTo(100 * ms)
}

func (n *simNode) learnDeath(o *simNode) {
	n.w.logf("%v learns that %v is dead", n, o)
	n.view[o.name-1], n.changeAt[o.name-1] = false, 0
	n.input(func(now Instant) { n.m.Dead(now, o.name) })
}
