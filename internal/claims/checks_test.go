package claims

import (
	"fmt"
	"slices"
	"time"
)

// checks holds what the promises of the protocol are checked with, and counts.
type checks struct {
	violation *violation // the first
	done      bool

	calm      bool          // all reach each other, and the views say so
	calmSince time.Duration // if calm

	silentAt   time.Duration // when a node that runs seemed silent last
	releasedAt time.Duration // the last release
	crashedAt  time.Duration
	healedAt   time.Duration
	drainedAt  time.Duration
	heldAt     map[string]time.Duration // when the id had a holder last in calm, or nobody to be one
	servedAt   map[string]time.Duration // the same under a lasting fault
	sides      []int                    // by host, of the split that healed last if all had noticed it
	apartAt    time.Duration            // when somebody did not see a node that ran
	faults     int                      // so far, and ends of faults
	sidesAlone int                      // the value of faults as long as nothing came after that split
	brokenAt   time.Duration            // of a lasting fault
	majority   []bool                   // by host, of a lasting fault
	highest    map[string]uint64        // token by id
	granted    map[string]uint64        // the last token of quorum mode, by id

	converged time.Duration // after the chaos; negative: not yet
	messages  int
	grants    int
	conflicts int // of holders
	expiries  int // of leases, in quorum mode
	twoHold   int // grants while another held
	lastLost  int // conflicts that left no holder
}

// violation is a promise that was not kept.
type violation struct {
	kind, text string
}

func (c *checks) init() {
	c.converged, c.silentAt, c.apartAt = -1, -5*sec, -5*sec
	c.heldAt, c.servedAt = map[string]time.Duration{}, map[string]time.Duration{}
	c.highest, c.granted = map[string]uint64{}, map[string]uint64{}
}

func (w *world) violate(kind, format string, args ...any) {
	if w.violation == nil {
		w.violation = &violation{kind, fmt.Sprintf(format, args...)}
		w.logf("VIOLATION %s: %s", kind, w.violation.text)
	}
}

// settledCalm says whether all is well for so long that no old message is on
// its way.
func (w *world) settledCalm() bool {
	return w.calm && w.now-w.calmSince > w.profile.bigDelay+sec
}

func (w *world) holders(id string) []*lease {
	return w.leases(id, func(l *lease) bool { return l.held && (w.profile.ttl == 0 || l.valid()) })
}

// leases returns those of live nodes for which keep is true.
func (w *world) leases(id string, keep func(*lease) bool) []*lease {
	var found []*lease
	for _, n := range w.nodes {
		if !n.alive {
			continue
		}
		for _, l := range n.leases {
			if l.id == id && keep(l) {
				found = append(found, l)
			}
		}
	}
	return found
}

func claimed(*lease) bool { return true }

func names(ls []*lease) string {
	s := ""
	for _, l := range ls {
		s += fmt.Sprintf(" %v(token %d)", l.claim, l.token)
	}
	return s
}

// reliable says whether the most is promised, even in chaos: messages are lost
// and processes crash, but no link breaks and no failure detector is wrong.
// Only when so many messages in a row are lost that somebody seems silent, or
// while not all have heard of a node that came, all is open for a while.
func (w *world) reliable() bool {
	return slices.Contains([]string{"clean", "calm", "race"}, w.profile.name) && w.now-w.silentAt > 5*sec && w.now-w.apartAt > 3*sec
}

// noteApart notes that somebody does not see a node that runs.
func (w *world) noteApart() {
	for _, n := range w.live() {
		for _, o := range w.live() {
			if n != o && !n.view[o.name-1] {
				w.apartAt = w.now
			}
		}
	}
}

// noteSilence notes that n thinks that another is silent, though both run.
func (w *world) noteSilence(n *simNode) {
	for _, p := range n.m.peers {
		if p != nil && p.inView && p.silent() && w.node(p.node).alive {
			w.silentAt, w.calm = w.now, false
		}
	}
}

// checkToken: tokens only grow (promise 5).
func (w *world) checkToken(l *lease, token uint64, first bool) {
	if !first && token <= l.token {
		w.violate("token", "%v of %s was given %d after %d", l.claim, l.id, token, l.token)
	}
	if w.profile.ttl > 0 {
		w.checkTokenOrder(l, token)
	}
	if first && token <= w.highest[l.id] && (w.settledCalm() || w.reliable()) {
		w.violate("token", "%v of %s got %d, not above %d", l.claim, l.id, token, w.highest[l.id])
	}
	if w.settledCalm() || w.reliable() {
		w.highest[l.id] = max(w.highest[l.id], token)
	}
	n := l.node
	n.highest[l.id] = max(n.highest[l.id], token)
	w.logf("%v of %s holds with token %d", l.claim, l.id, token)
}

// checkGrant: never two holders while views agree (promise 1), and first come,
// first served (promise 3).
func (w *world) checkGrant(l *lease) {
	if w.profile.ttl > 0 {
		w.checkLease(l)
	}
	hs := w.holders(l.id)
	if len(hs) > 1 {
		w.twoHold++
		if w.settledCalm() || w.reliable() {
			w.violate("two", "holders of %s:%s", l.id, names(hs))
		}
	}
	for _, o := range w.leases(l.id, func(o *lease) bool { return !o.held }) {
		if w.profile.ttl > 0 {
			w.checkTurn(l, o)
			continue
		}
		x, y := l.node, o.node
		if y.frozen || x != y && !(x.view[y.name-1] && y.view[x.name-1]) {
			continue
		}
		if (w.settledCalm() || w.reliable()) && o.askedAt < w.now && o.claim.before(l.claim) {
			w.violate("order", "%v of %s holds before %v, which is older", l.claim, l.id, o.claim)
		}
		// Whatever the clocks say: who asked seconds later waits longer.
		calm := w.settledCalm() && o.askedAt > w.calmSince+w.profile.bigDelay && o.askedAt+2*sec < l.askedAt
		if calm || w.reliable() && o.askedAt+5*sec < l.askedAt {
			w.violate("order", "%v of %s holds before %v, which asked %v earlier", l.claim, l.id, o.claim, l.askedAt-o.askedAt)
		}
	}
}

// checkConflict looks at who is left when l had to end.
func (w *world) checkConflict(l *lease) {
	hs := w.holders(l.id)
	switch len(hs) {
	case 0:
		w.lastLost++
		w.checkLastLost(l)
	case 1:
		w.checkWoken(hs[0], l)
		w.checkSides(hs[0], l)
	}
}

// checkLastLost: a conflict leaves somebody, but for one that ended just then.
func (w *world) checkLastLost(l *lease) {
	plain := w.profile.name == "split" || w.profile.name == "freeze" || w.reliable() || w.settledCalm()
	if plain && w.now-w.releasedAt > 4*sec && w.now-w.crashedAt > 4*sec {
		w.violate("all-lost", "%v was the last holder of %s", l.claim, l.id)
	}
}

// checkWoken: a holder that was frozen for so long that all others gave it up
// loses against the one that took over.
func (w *world) checkWoken(winner, loser *lease) {
	n := winner.node
	woken := n.givenUp && n.loneFault && w.now-n.wokeAt < 8*sec && winner.grantedAt < n.frozeAt
	if woken && loser.node.freezes == 0 && loser.grantedAt > n.frozeAt && loser.grantedAt < n.wokeAt {
		w.violate("woken", "%v of %s, woken, was kept over %v", winner.claim, winner.id, loser.claim)
	}
}

// checkSides: after a split into two the holder on the larger side stays.
func (w *world) checkSides(winner, loser *lease) {
	if w.sides == nil || w.faults != w.sidesAlone || w.silentAt > w.healedAt || w.now-w.healedAt > 8*sec || winner.grantedAt > w.healedAt || loser.grantedAt > w.healedAt {
		return
	}
	size := func(l *lease) int {
		k := 0
		for _, n := range w.live() {
			if n.voter && w.sides[n.host] == w.sides[l.node.host] {
				k++
			}
		}
		return k
	}
	if a, b := size(winner), size(loser); a < b {
		w.violate("smaller-side", "%v of %s on a side of %d was kept over %v on a side of %d", winner.claim, winner.id, a, loser.claim, b)
	}
}

// checkTraffic: nobody raises tokens in turns with another at the speed of the
// network.
func (w *world) checkTraffic() {
	const most = 50000 // ten times of what a run needs
	if w.messages > most {
		w.violate("storm", "more than %d messages", most)
	}
}

// checkCalm looks whether all is well, and if it has been for long enough,
// whether there is exactly one holder.
func (w *world) checkCalm() {
	for _, n := range w.live() {
		w.noteSilence(n)
	}
	if w.silentAt == w.now || !w.whole() {
		w.calm = false
		return
	}
	if !w.calm {
		w.calm, w.calmSince = true, w.now
	}
	for _, id := range w.ids {
		hs := w.holders(id)
		if len(hs) > 0 || len(w.leases(id, claimed)) == 0 || !w.quorate() {
			w.heldAt[id] = w.now
		}
		since := w.now - max(w.calmSince, w.heldAt[id])
		if w.settledCalm() && since > w.patience() {
			w.violate("none", "nobody holds %s for %v:%s", id, since, names(w.leases(id, claimed)))
		}
		if len(hs) > 1 && w.now-w.calmSince > w.profile.bigDelay+6*sec {
			w.violate("two-lasting", "holders of %s:%s", id, names(hs))
		}
	}
}

// whole says whether every link works, every process runs, and all see each
// other and nobody else.
func (w *world) whole() bool {
	for _, row := range w.links {
		if slices.Contains(row, false) {
			return false
		}
	}
	for _, n := range w.live() {
		if n.frozen {
			return false
		}
		for i, o := range w.nodes {
			if o != n && n.view[i] != o.alive {
				return false
			}
		}
	}
	return true
}

// settled says whether all see each other and each id that is claimed has
// exactly one holder.
func (w *world) settled() bool {
	for _, id := range w.ids {
		if len(w.leases(id, claimed)) > 0 && len(w.holders(id)) != 1 {
			return false
		}
	}
	return w.whole()
}

// watchConvergence finds out how long it takes after the chaos until all is
// settled for good.
func (w *world) watchConvergence() {
	after := w.now - w.profile.chaos
	switch {
	case !w.settled(), w.profile.ttl > 0 && !w.calm:
		w.converged = -1
	case w.converged < 0 && w.profile.ttl > 0:
		w.converged = w.now - w.calmSince // the views have to be right before
	case w.converged < 0:
		w.converged = after
	}
	if after < 13*sec {
		w.after(50*ms, w.watchConvergence)
	}
}

// checkOneHolder: once the network is whole, exactly one holder (promise 2),
// with a token that is the highest anybody alive has seen.
func (w *world) checkOneHolder() {
	for _, id := range w.ids {
		hs, all := w.holders(id), w.leases(id, claimed)
		switch {
		case len(all) == 0:
		case len(hs) == 0:
			w.violate("none", "nobody holds %s:%s", id, names(all))
		case len(hs) > 1:
			w.violate("two-lasting", "holders of %s:%s", id, names(hs))
		default:
			w.checkHighest(hs[0])
		}
	}
}

func (w *world) checkHighest(l *lease) {
	for _, n := range w.live() {
		if n.highest[l.id] > l.token {
			w.violate("token", "%v of %s holds with %d, but %v has seen %d", l.claim, l.id, l.token, n, n.highest[l.id])
		}
		if w.now-w.silentAt < 5*sec || (!n.voter || w.profile.ttl > 0) && w.now-l.grantedAt < 5*sec { // nobody waits until all know
			continue
		}
		if h, ok := n.m.Holder(l.id); !ok || h.Claim != l.claim || h.Token != l.token {
			w.violate("lookup", "%v holds %s with %d, but %v says %v %v", l.claim, l.id, l.token, n, h, ok)
		}
	}
}

// checkAllServed: everybody had a turn.
func (w *world) checkAllServed() {
	for _, id := range w.ids {
		if left := w.leases(id, claimed); len(left) > 0 {
			w.violate("none", "never served:%s of %s", names(left), id)
		}
	}
}

// checkForgotten: what nobody uses is not kept.
func (w *world) checkForgotten() {
	for _, n := range w.live() {
		m := n.m
		if len(m.ids) > 0 || len(m.waiting) > 0 || len(m.touched) > 0 || len(m.Holders()) > 0 {
			w.violate("memory", "%v keeps %d ids, %d waiting", n, len(m.ids), len(m.waiting))
		}
		if len(m.byNode) != len(w.live())-1 {
			w.violate("memory", "%v keeps %d nodes, of %d others", n, len(m.byNode), len(w.live())-1)
		}
	}
}

// checkLastingFault: as long as one part has a majority, somebody holds.
func (w *world) checkLastingFault() {
	if w.quiet {
		return
	}
	for _, id := range w.ids {
		waiting := w.leases(id, func(l *lease) bool {
			return w.now-l.askedAt > 5*sec && (w.majority == nil || w.majority[l.node.host])
		})
		hs := w.holders(id)
		if len(waiting) == 0 || len(hs) > 0 {
			w.servedAt[id] = w.now
		}
		if w.profile.blindDetector && !slices.ContainsFunc(hs, func(l *lease) bool { return l.grantedAt < w.brokenAt+8*sec }) && len(hs) > 1 {
			w.violate("two", "elected without a majority:%s", names(hs))
		}
		if w.now-w.servedAt[id] > 12*sec {
			w.violate("stall", "nobody held %s for 12 s", id)
		}
	}
	w.after(50*ms, w.checkLastingFault)
}
