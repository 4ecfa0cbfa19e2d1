package claims

import (
	"slices"
	"time"
)

// profile is a kind of trouble.
type profile struct {
	name   string
	hosts  int // zero: two to seven
	ids    int // at most
	claims int // of one node for one id, at most

	chaos    time.Duration // how long there is trouble
	bigDelay time.Duration // of a message, at most
	skew     time.Duration // of a host's clock, at most
	drift    float64

	// Shares: of the messages; of the inputs after which the sender is busy; of the grants that end after a while;
	// of the hosts that start late; of the nodes that only observe; of the crashed processes that start again.
	loss, dup, slow float64
	busy            float64
	release         float64
	lateJoin        float64
	observers       float64
	restart         float64
	restartWithin   time.Duration
	freezeFor       time.Duration // at most
	forgetful       bool          // ids nobody uses and departed nodes are soon forgotten
	blindDetector   bool          // the failure detector does not notice broken links
	lastingFault    func(*world)  // which comes early and stays

	ttl   time.Duration // of quorum mode; zero: available mode
	proof float64       // share of the crashes that are proved
	young float64       // share of the holders that crash before they have said so

	// Events a second.
	acquire, crash, freeze, flap, split, link, step float64
}

func profiles() []profile {
	base := profile{
		ids: 2, claims: 2, chaos: 25 * sec, bigDelay: 3 * sec, skew: 20 * sec, drift: 0.0099,
		loss: 0.05, dup: 0.05, slow: 0.05, busy: 0.1, release: 0.7, restartWithin: 5 * sec, freezeFor: 9 * sec, acquire: 0.8, forgetful: true,
	}
	var all []profile
	add := func(name string, change func(p *profile)) {
		p := base
		p.name = name
		change(&p)
		all = append(all, p)
	}
	add("clean", func(p *profile) { p.observers = 0.1; p.crash, p.restart, p.lateJoin = 0.15, 0.7, 0.3 })
	add("calm", func(p *profile) {
		p.observers = 0.1
		p.loss, p.dup, p.slow, p.acquire, p.chaos = 0.15, 0.15, 0.2, 2, 15*sec
	})
	add("race", func(p *profile) {
		p.hosts, p.ids, p.loss, p.dup, p.slow, p.busy = 3, 1, 0.1, 0.5, 0.4, 0.3
		p.acquire, p.release, p.chaos = 6, 1, 20*sec
	})
	add("split", func(p *profile) { p.split, p.release, p.acquire = 0.1, 0.3, 0.5 })
	add("freeze", func(p *profile) { p.freeze, p.release, p.acquire = 0.15, 0.3, 0.5 })
	// Longer than ids and nodes are remembered.
	add("sleep", func(p *profile) {
		p.freeze, p.freezeFor, p.acquire, p.release, p.chaos = 0.1, 30*sec, 0.3, 0.9, 50*sec
	})
	add("link", func(p *profile) { p.observers = 0.1; p.link, p.crash, p.restart = 0.3, 0.05, 0.7 })
	add("fp", func(p *profile) { p.observers = 0.1; p.flap, p.crash, p.restart, p.lateJoin = 0.5, 0.05, 0.7, 0.3 })
	add("mix", func(p *profile) {
		p.observers = 0.1
		p.flap, p.split, p.freeze, p.link, p.crash, p.restart, p.lateJoin = 0.15, 0.06, 0.1, 0.1, 0.1, 0.8, 0.2
	})
	add("wild", func(p *profile) {
		p.observers = 0.1
		p.flap, p.split, p.freeze, p.link, p.crash, p.restart, p.lateJoin = 0.5, 0.2, 0.3, 0.3, 0.3, 0.9, 0.3
		p.restartWithin, p.step = 1500*ms, 0.1
		p.loss, p.dup, p.slow, p.busy, p.acquire, p.claims, p.ids = 0.2, 0.2, 0.2, 0.3, 2, 3, 3
	})
	add("partial", func(p *profile) { p.chaos, p.release, p.lastingFault = 40*sec, 0.8, (*world).breakOneLink })
	add("tcp", func(p *profile) {
		p.chaos, p.release, p.blindDetector, p.lastingFault = 40*sec, 0.8, true, (*world).breakBetweenHalves
	})
	// The same with nothing forgotten, as in the first minute of a cluster.
	add("remember", func(p *profile) {
		p.observers = 0.1
		p.flap, p.split, p.freeze, p.link, p.crash, p.restart, p.lateJoin = 0.15, 0.06, 0.1, 0.1, 0.1, 0.8, 0.2
		p.forgetful = false
	})
	return all
}

// scheduleFaults plans everything that happens to the cluster from outside.
func (w *world) scheduleFaults() {
	p := w.profile
	for range 2 {
		w.after(w.upTo(300*ms), w.someoneClaims)
	}
	w.often(p.acquire, w.someoneClaims)
	w.often(p.acquire/6, w.someoneGivesUp)
	w.often(p.crash, w.someCrash)
	w.often(p.freeze, w.someFreeze)
	w.often(p.flap, w.someFlap)
	w.often(p.split, w.someSplit)
	w.often(p.link, w.someLinkBreaks)
	w.often(p.step, w.someClockSteps)
	if p.lastingFault != nil {
		w.after(2*sec, func() { p.lastingFault(w) })
		w.after(0, w.checkLastingFault)
	}
	w.after(p.chaos, w.endChaos)
}

// often has do happen rate times a second while there is chaos.
func (w *world) often(rate float64, do func()) {
	if rate <= 0 {
		return
	}
	for at := time.Duration(0); ; {
		at += time.Duration(w.rng.ExpFloat64() / rate * float64(sec))
		if at >= w.profile.chaos {
			return
		}
		w.after(at, do)
	}
}

// fault notes that something goes wrong or right again, at n alone or, if nil,
// elsewhere as well.
func (w *world) fault(n *simNode) {
	w.calm = false
	w.faults++
	for _, o := range w.nodes {
		if o != n {
			o.loneFault = false
		}
	}
}

func (w *world) someone() *simNode {
	live := w.live()
	if len(live) == 0 {
		return nil
	}
	return live[w.rng.IntN(len(live))]
}

// someoneOrHolder returns a holder in half of the cases: there it hurts.
func (w *world) someoneOrHolder() *simNode {
	if hs := w.holders(w.ids[0]); len(hs) > 0 && w.chance(0.5) {
		return hs[w.rng.IntN(len(hs))].node
	}
	return w.someone()
}

func (w *world) someoneClaims() {
	id := w.ids[w.rng.IntN(len(w.ids))]
	if n := w.someone(); n != nil {
		n.whenAwake(func() { n.acquire(id) })
	}
}

func (w *world) someoneGivesUp() {
	n := w.someone()
	if n == nil {
		return
	}
	for _, l := range n.leases {
		if !l.held {
			n.whenAwake(func() {
				if !l.held {
					n.release(l, "gives up")
				}
			})
			return
		}
	}
}

// someCrash ends a process. Half of the crashes are noticed by most others at
// once, as when a connection breaks.
func (w *world) someCrash() {
	if n := w.someoneOrHolder(); n != nil {
		w.crash(n)
	}
}

func (w *world) crash(n *simNode) {
	if len(w.live()) <= 1 || w.amnesia() && len(w.live()) == w.quorum {
		return
	}
	w.fault(nil)
	w.logf("%v crashes", n)
	n.alive = false
	w.noteCrash(n)
	n.inbox, n.stalled = nil, nil
	w.crashedAt = w.now
	if w.chance(0.5) && !n.frozen {
		for _, o := range w.live() {
			if w.chance(0.8) && w.links[o.host][n.host] {
				w.after(ms+w.upTo(100*ms), func() { o.whenAwake(func() { o.down(n) }) })
			}
		}
	}
	if w.chance(w.profile.restart) {
		w.after(w.upTo(w.profile.restartWithin), func() {
			if !w.quiet {
				w.boot(n.host)
			}
		})
	}
}

func (w *world) someFreeze() {
	n := w.someoneOrHolder()
	if n == nil || n.frozen {
		return
	}
	settled := w.calm && w.now-w.calmSince > w.profile.bigDelay
	w.fault(n)
	w.logf("%v freezes", n)
	n.frozen, n.frozeAt, n.loneFault = true, w.now, settled
	n.freezes++
	w.after(200*ms+w.upTo(w.profile.freezeFor), func() { w.wake(n) })
}

// wake lets n go on. What came in the meantime is read at once, or most of it
// was thrown away; the failure detector may think that the others are gone.
func (w *world) wake(n *simNode) {
	if !n.alive || !n.frozen {
		return
	}
	w.fault(n)
	w.logf("%v wakes", n)
	others := w.live()
	n.givenUp = len(others) > 1 && !slices.ContainsFunc(others, func(o *simNode) bool { return o.view[n.name-1] })
	n.frozen, n.wokeAt = false, w.now
	inbox, stalled := n.inbox, n.stalled
	n.inbox, n.stalled = nil, nil
	if w.profile.flap > 0 && w.chance(0.3) {
		for _, o := range w.nodes {
			if w.chance(0.7) {
				n.down(o)
			}
		}
	}
	for _, do := range stalled {
		n.whenAwake(do)
	}
	lossy := w.chance(0.5)
	for _, do := range inbox {
		if !lossy || w.chance(0.3) {
			w.after(w.upTo(30*ms), do)
		}
	}
}

// someFlap makes the failure detector wrong about y: at x only, at most nodes,
// or at x about everybody.
func (w *world) someFlap() {
	x, y := w.someone(), w.someone()
	if x == nil || x == y || x.frozen {
		return
	}
	w.fault(nil)
	w.logf("%v is wrong about %v", x, y)
	x.down(y)
	if w.chance(0.6) {
		for _, z := range w.live() {
			if z != y && z != x && w.chance(0.8) {
				w.after(w.upTo(200*ms), func() { z.whenAwake(func() { z.down(y) }) })
			}
		}
	}
	if w.chance(0.2) {
		for _, z := range w.nodes {
			x.down(z)
		}
	}
}

// someSplit cuts the hosts into two parts, or three, for a while.
func (w *world) someSplit() {
	side := make([]int, len(w.hosts))
	for i := range side {
		side[i] = w.rng.IntN(2)
		if w.chance(0.1) {
			side[i] = 2
		}
	}
	w.fault(nil)
	w.logf("network splits: sides of the hosts %v", side)
	for i := range side {
		for j := range side {
			if side[i] != side[j] {
				w.links[i][j] = false
			}
		}
	}
	w.sides = nil
	faults := w.faults
	w.after(500*ms+w.upTo(9*sec), func() {
		if w.quiet {
			return
		}
		alone := w.faults == faults
		w.healAll()
		if alone && !slices.Contains(side, 2) && w.viewsAre(side) {
			w.sides, w.sidesAlone = side, w.faults
		}
	})
}

// viewsAre says whether all see exactly those on their own side.
func (w *world) viewsAre(side []int) bool {
	for _, n := range w.live() {
		for _, o := range w.live() {
			if n != o && n.view[o.name-1] != (side[n.host] == side[o.host]) {
				return false
			}
		}
	}
	return true
}

func (w *world) healAll() {
	w.fault(nil)
	w.logf("network heals")
	for i := range w.links {
		for j := range w.links {
			w.links[i][j] = true
		}
	}
	w.sides, w.healedAt = nil, w.now
}

// someLinkBreaks cuts the way from one host to another, often the way back too.
func (w *world) someLinkBreaks() {
	i, j := w.rng.IntN(len(w.hosts)), w.rng.IntN(len(w.hosts))
	if i == j {
		return
	}
	w.fault(nil)
	w.links[i][j] = false
	if w.chance(0.6) {
		w.links[j][i] = false
	}
	w.logf("link %d -> %d breaks, back %v", i, j, w.links[j][i])
	w.after(500*ms+w.upTo(9*sec), func() {
		if w.quiet {
			return
		}
		w.fault(nil)
		w.logf("link %d - %d is mended", i, j)
		w.links[i][j], w.links[j][i] = true, true
	})
}

// someClockSteps sets a host's clock forward or back.
func (w *world) someClockSteps() {
	h := &w.hosts[w.rng.IntN(len(w.hosts))]
	h.skew += w.upTo(10*sec) - 5*sec
}

// breakOneLink breaks one link for the whole run.
func (w *world) breakOneLink() {
	i, j := w.rng.IntN(len(w.hosts)), w.rng.IntN(len(w.hosts)-1)
	if j >= i {
		j++
	}
	w.fault(nil)
	w.links[i][j] = false
	if w.chance(0.7) {
		w.links[j][i] = false
	}
	w.logf("link %d -> %d breaks, back %v", i, j, w.links[j][i])
}

// breakBetweenHalves breaks all links between two parts for the whole run,
// which the failure detector does not notice: messages need TCP, it does not.
func (w *world) breakBetweenHalves() {
	cut := len(w.hosts) / 2
	if w.chance(0.4) {
		cut = 1
	}
	w.fault(nil)
	w.logf("messages pass no more between hosts below %d and the others", cut)
	for i := range w.links {
		for j := range w.links {
			w.links[i][j] = (i < cut) == (j < cut)
		}
	}
	w.brokenAt = w.now
	for i := range w.hosts {
		w.majority = append(w.majority, i >= cut && 2*(len(w.hosts)-cut) > len(w.hosts))
	}
}

// endChaos makes the network whole and lets every process run.
func (w *world) endChaos() {
	w.logf("the chaos ends")
	w.quiet = true
	w.healAll()
	for _, n := range w.live() {
		if n.frozen {
			w.wake(n)
		}
	}
	for h := range w.hosts {
		if !w.amnesia() && w.chance(0.7) || !w.quorate() {
			w.boot(h)
		}
	}
	w.profile.loss = min(w.profile.loss, 0.02)
	if w.profile.ttl > 0 {
		w.profile.slow = min(w.profile.slow, 0.05)
	}
	w.after(100*ms, w.watchConvergence)
	w.after(14*sec, w.drain)
}

// drain releases the holders again and again: every waiting claim gets its turn.
func (w *world) drain() {
	w.checkOneHolder()
	released := false
	for _, id := range w.ids {
		for _, l := range w.holders(id) {
			l.node.release(l, "ends")
			released = true
		}
	}
	if !released {
		w.checkAllServed()
		w.forget()
		return
	}
	w.drainedAt = w.now
	w.awaitNext()
}

// awaitNext goes on with drain when each id that is claimed has a holder.
func (w *world) awaitNext() {
	switch {
	case w.settled():
		w.after(100*ms, w.drain)
	case w.now-w.drainedAt > 8*sec:
		w.drain() // which will find what is wrong
	default:
		w.after(50*ms, w.awaitNext)
	}
}

// forget waits until the machines have forgotten all ids and dead nodes.
func (w *world) forget() {
	for _, n := range w.live() {
		n.m.idleTicks, n.m.goneTicks = 2, 2
	}
	w.after(12*sec, func() {
		w.checkForgotten()
		w.done = true
	})
}
