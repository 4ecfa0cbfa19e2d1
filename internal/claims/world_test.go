package claims

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// The simulation: hosts with clocks of their own, joined by links that lose,
// delay, repeat and reorder, run processes, each with a Machine, a failure
// detector and an application. Time and chance are virtual: a seed and a
// profile give the same run always.

const (
	ms  = time.Millisecond
	sec = time.Second
)

// simStart is when a run starts, by the clocks of a host without skew.
var simStart = Instant{Wall: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Up: time.Hour}

func (i Instant) add(d time.Duration) Instant { return Instant{i.Wall.Add(d), i.Up + d} }

type world struct {
	profile profile
	rng     *rand.Rand
	now     time.Duration
	queue   eventQueue
	serial  int

	hosts []host
	links [][]bool // links[i][j]: what host i sends reaches host j

	quorum, voters int      // of quorum mode
	ghosts         []*lease // of processes that have crashed, and whose child nobody has seen end
	nodes          []*simNode
	ids            []string
	quiet          bool // no more faults, releases and new claims

	repeats bool // the senders ask early whether something was lost

	checks
	log *journal // nil unless the run is told
}

// host is a computer: its clock is off and runs at a rate of its own.
type host struct {
	skew     time.Duration
	rate     float64
	observer bool // quorum mode, where the number of voters is fixed
}

// simNode is one process.
type simNode struct {
	w      *world
	name   Node
	host   int
	m      *Machine
	alive  bool
	frozen bool
	voter  bool // otherwise it observes

	view      []bool          // by node name
	changeAt  []time.Duration // when the failure detector will notice that view is wrong; zero: it is right
	inbox     []func()        // came while frozen
	stalled   []func()        // what the program was to do while frozen
	sendDue   bool            // the sender is busy and will fetch later
	leases    []*lease
	highest   map[string]uint64 // token seen, by id
	advanceAt time.Duration     // when Advance is due; zero: not planned
	freezes   int
	frozeAt   time.Duration
	wokeAt    time.Duration
	givenUp   bool // all others had dropped it when it woke
	loneFault bool // nothing else has gone wrong since it froze
}

// lease is a claim as the application sees it.
type lease struct {
	node      *simNode
	id        string
	claim     Claim
	askedAt   time.Duration
	grantedAt time.Duration
	held      bool
	token     uint64

	// Quorum mode.
	stopWithin time.Duration
	until      time.Duration // by the clock of its host
}

type event struct {
	at     time.Duration
	serial int
	do     func()
}

type eventQueue []*event

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	if q[i].at != q[j].at {
		return q[i].at < q[j].at
	}
	return q[i].serial < q[j].serial
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(*event)) }
func (q *eventQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// after has do run when d has passed.
func (w *world) after(d time.Duration, do func()) {
	w.serial++
	heap.Push(&w.queue, &event{w.now + d, w.serial, do})
}

// chance is true with probability p.
func (w *world) chance(p float64) bool { return p > 0 && w.rng.Float64() < p }

// upTo returns a random duration below d.
func (w *world) upTo(d time.Duration) time.Duration { return time.Duration(w.rng.Int64N(int64(d))) }

func (w *world) logf(format string, args ...any) {
	if w.log != nil {
		w.log.add(w.now, format, args...)
	}
}

func newWorld(p profile, seed uint64, log *journal) *world {
	w := &world{profile: p, rng: rand.New(rand.NewPCG(seed, 0)), log: log}
	w.checks.init()
	w.repeats = w.chance(0.5)
	hosts := p.hosts
	if hosts == 0 {
		hosts = 2 + w.rng.IntN(6)
	}
	w.ids = []string{"a", "b", "c"}[:1+w.rng.IntN(p.ids)]
	for range hosts {
		w.hosts = append(w.hosts, host{skew: w.upTo(p.skew), rate: w.rate()})
		w.links = append(w.links, slices.Repeat([]bool{true}, hosts))
	}
	if p.ttl > 0 {
		w.chooseQuorum()
	}
	for h := range w.hosts {
		if h > 0 && w.chance(p.lateJoin) {
			w.after(w.upTo(p.chaos), func() { w.boot(h) })
		} else {
			w.newNode(h)
		}
	}
	for _, n := range w.nodes {
		for _, o := range w.nodes {
			n.up(o)
		}
	}
	w.detectFailures()
	w.scheduleFaults()
	return w
}

// run lets time pass until the run has ended or something was violated.
func (w *world) run() {
	for len(w.queue) > 0 && !w.done && w.violation == nil {
		e := heap.Pop(&w.queue).(*event)
		w.now = e.at
		e.do()
	}
}

// live returns the nodes that run, frozen or not.
func (w *world) live() []*simNode {
	var live []*simNode
	for _, n := range w.nodes {
		if n.alive {
			live = append(live, n)
		}
	}
	return live
}

func (w *world) node(name Node) *simNode { return w.nodes[name-1] }

func (w *world) newNode(host int) *simNode {
	n := &simNode{w: w, name: Node(len(w.nodes) + 1), host: host, alive: true, highest: map[string]uint64{}}
	if w.profile.ttl > 0 {
		n.voter = !w.hosts[host].observer
	} else {
		n.voter = host == 0 || !w.chance(w.profile.observers)
	}
	n.m = New(n.clock(), Config{
		Self: n.name, Name: n.hostName(), Observer: !n.voter,
		Quorum: w.quorum, Voters: w.voters, TTL: w.profile.ttl,
	})
	if w.profile.forgetful {
		n.m.idleTicks, n.m.goneTicks = 3+w.rng.IntN(6), 8+w.rng.Uint64N(8)
	}
	w.nodes = append(w.nodes, n)
	for _, o := range w.nodes {
		o.view = append(o.view, make([]bool, len(w.nodes)-len(o.view))...)
		o.changeAt = append(o.changeAt, make([]time.Duration, len(w.nodes)-len(o.changeAt))...)
	}
	w.after(w.upTo(sec), n.tick)
	return n
}

func (n *simNode) String() string { return fmt.Sprintf("n%d", n.name) }

// clock is what the host's clocks show.
func (n *simNode) clock() Instant {
	h := n.w.hosts[n.host]
	passed := time.Duration(float64(n.w.now) * h.rate)
	return Instant{Wall: simStart.Wall.Add(h.skew + passed), Up: simStart.Up + passed}
}

func (n *simNode) tick() {
	if !n.alive {
		return
	}
	if !n.frozen { // a ticker drops the ticks that nobody takes
		n.input(n.m.Tick)
	}
	period := time.Duration(float64(sec) / n.w.hosts[n.host].rate)
	n.w.after(period, n.tick)
}

// input gives something to the machine and carries out what it says, as the
// engine does.
func (n *simNode) input(do func(now Instant)) {
	do(n.clock())
	n.w.noteSilence(n)
	n.tellStory()
	for _, e := range n.m.Events() {
		n.event(e)
	}
	if !n.alive {
		return // it crashed over what it was told
	}
	n.noteRenewals()
	n.planAdvance()
	switch {
	case n.sendDue:
	case n.w.chance(n.w.profile.busy):
		n.sendDue = true
		n.w.after(n.w.upTo(100*ms), func() { n.whenAwake(n.sendAll) })
	default:
		n.sendAll()
	}
}

// whenAwake does it now, or when the process goes on.
func (n *simNode) whenAwake(do func()) {
	switch {
	case !n.alive:
	case n.frozen:
		n.stalled = append(n.stalled, do)
	default:
		do()
	}
}

func (n *simNode) sendAll() {
	n.sendDue = false
	limit := 1000
	if n.w.chance(n.w.profile.busy) {
		limit = 1 + n.w.rng.IntN(2)
	}
	var to []Node
	for to = n.m.Outbox(to[:0]); len(to) > 0; to = n.m.Outbox(to[:0]) {
		for _, o := range to {
			n.send(n.w.node(o), n.m.Message(n.clock(), o, limit))
		}
	}
}

func (n *simNode) send(to *simNode, msg Message) {
	w := n.w
	b := AppendMessage(nil, msg)
	for range w.copies() {
		if !w.links[n.host][to.host] || w.chance(w.profile.loss) {
			w.logMessage(msg, "lost")
			continue
		}
		w.logMessage(msg, "")
		w.after(w.delay(), func() { to.deliver(b) })
	}
	if w.repeats && len(msg.Updates) > 0 {
		w.after(50*ms, func() { n.whenAwake(func() { n.repeat(msg) }) })
	}
}

// repeat is done some time after msg was sent, for what was not acknowledged.
func (n *simNode) repeat(msg Message) {
	n.input(func(Instant) {
		for _, u := range msg.Updates {
			if u.WantAck {
				n.m.Repeat(msg.To, u.ID, u.Ver)
			}
		}
	})
}

func (w *world) copies() int {
	if w.chance(w.profile.dup) {
		return 2
	}
	return 1
}

// delay is that of a message: most are quick, some are slow, a few are very
// slow. So messages overtake each other.
func (w *world) delay() time.Duration {
	x := w.rng.Float64()
	switch {
	case x < w.profile.slow/5 && !w.quiet:
		return w.upTo(w.profile.bigDelay)
	case x < w.profile.slow:
		return w.upTo(400 * ms)
	}
	return ms + w.upTo(20*ms)
}

func (n *simNode) deliver(b []byte) {
	if !n.alive {
		return
	}
	if n.frozen {
		n.inbox = append(n.inbox, func() { n.deliver(b) })
		return
	}
	msg, err := ParseMessage(b)
	if err != nil {
		n.w.violate("wire", "%v", err)
		return
	}
	n.w.messages++
	n.w.logReceipt(msg)
	n.input(func(now Instant) { n.m.Receive(now, msg) })
}

// event is what the engine and the application do about it.
func (n *simNode) event(e Event) {
	l := n.lease(e.ID, e.Claim)
	if l == nil && e.Kind == Expired {
		return // it was just released
	}
	if l == nil {
		n.w.violate("event", "%v of %v, which is no claim", e, n)
		return
	}
	switch e.Kind {
	case Granted:
		n.granted(l, e.Token)
	case Conflict:
		n.conflict(l)
	case Expired:
		n.expired(l)
	}
}

func (n *simNode) lease(id string, c Claim) *lease {
	for _, l := range n.leases {
		if l.id == id && l.claim == c {
			return l
		}
	}
	return nil
}

func (n *simNode) granted(l *lease, token uint64) {
	w := n.w
	first := !l.held
	w.checkToken(l, token, first)
	l.token = token
	if !first {
		return
	}
	l.held, l.grantedAt = true, w.now
	w.grants++
	w.checkGrant(l)
	if !w.quiet && w.chance(w.profile.young) {
		w.crash(n)
	}
	if w.chance(w.profile.release) {
		w.after(100*ms+w.upTo(4*sec), func() {
			if !w.quiet {
				n.whenAwake(func() { n.release(l, "ends") })
			}
		})
	}
}

func (n *simNode) conflict(l *lease) {
	w := n.w
	n.remove(l)
	if !l.held { // the application never heard of it
		n.acquire(l.id)
		return
	}
	w.conflicts++
	w.checkConflict(l)
	if w.chance(0.9) {
		w.after(50*ms+w.upTo(400*ms), func() { n.whenAwake(func() { n.acquire(l.id) }) })
	}
}

func (n *simNode) remove(l *lease) {
	n.leases = slices.DeleteFunc(n.leases, func(o *lease) bool { return o == l })
}

func (n *simNode) acquire(id string) {
	mine := 0
	for _, l := range n.leases {
		if l.id == id {
			mine++
		}
	}
	if mine >= n.w.profile.claims || !n.voter {
		return
	}
	stopWithin := n.w.stopWithin()
	n.input(func(now Instant) {
		c := n.m.Acquire(now, id, n.String(), stopWithin)
		n.leases = append(n.leases, &lease{node: n, id: id, claim: c, askedAt: n.w.now, stopWithin: stopWithin})
		n.w.logf("%v claims %s: %v", n, id, c)
	})
}

func (n *simNode) release(l *lease, why string) {
	if !slices.Contains(n.leases, l) {
		return
	}
	n.w.logf("%v %s: %v of %s", n, why, l.claim, l.id)
	n.remove(l)
	n.w.releasedAt = n.w.now
	n.input(func(now Instant) { n.m.Release(now, l.id, l.claim) })
}

// boot starts a process on host, which joins those it can reach: the clocks
// are exchanged before anything else.
func (w *world) boot(host int) {
	if slices.ContainsFunc(w.live(), func(n *simNode) bool { return n.host == host }) {
		return
	}
	w.fault(nil)
	w.apartAt = w.now
	n := w.newNode(host)
	parts := w.parts()
	var peers []*simNode
	for _, o := range w.live() {
		if o != n && !o.frozen && parts[o.host] == parts[host] {
			peers = append(peers, o)
		}
	}
	if len(peers) == 0 {
		w.logf("%v boots on host %d, alone", n, host)
		return
	}
	peer := peers[w.rng.IntN(len(peers))]
	w.logf("%v boots on host %d and joins %v", n, host, peer)
	n.m.MergeHLC(n.clock(), peer.m.HLC())
	peer.m.MergeHLC(peer.clock(), n.m.HLC())
	for i, seen := range peer.view {
		if seen {
			n.up(w.nodes[i])
		}
	}
	n.up(peer)
	peer.up(n)
	if w.chance(0.3) { // as a program does that starts its child at once
		n.acquire(w.ids[0])
	}
}

func (n *simNode) up(o *simNode) {
	i := o.name - 1
	if o == n || n.view[i] {
		return
	}
	n.view[i], n.changeAt[i] = true, 0
	n.w.calm = false
	n.w.logf("%v sees %v", n, o)
	n.input(func(now Instant) { n.m.NodeUp(now, o.name, o.hostName(), o.voter) })
}

func (n *simNode) down(o *simNode) {
	i := o.name - 1
	if o == n || !n.view[i] {
		return
	}
	n.view[i], n.changeAt[i] = false, 0
	n.w.calm = false
	n.w.logf("%v loses %v", n, o)
	n.input(func(now Instant) { n.m.NodeDown(now, o.name) })
}

// parts numbers the hosts by which of them reach each other, if only through
// others: a failure detector asks those.
func (w *world) parts() []int {
	part := make([]int, len(w.hosts))
	if w.profile.blindDetector {
		return part
	}
	awake := make([]bool, len(w.hosts))
	for _, n := range w.live() {
		awake[n.host] = awake[n.host] || !n.frozen
	}
	for i := range part {
		part[i] = i
	}
	for changed := true; changed; {
		changed = false
		for i := range part {
			for j := range part {
				if part[i] > part[j] && awake[i] && awake[j] && w.links[i][j] && w.links[j][i] {
					part[i], changed = part[j], true
				}
			}
		}
	}
	return part
}

// detectFailures brings views nearer to the truth, as a failure detector does
// within some time.
func (w *world) detectFailures() {
	parts := w.parts()
	for _, n := range w.live() {
		if n.frozen {
			continue
		}
		for i, o := range w.nodes {
			truth := o.alive && !o.frozen && parts[n.host] == parts[o.host]
			switch {
			case o == n:
			case n.view[i] == truth:
				n.changeAt[i] = 0
			case n.changeAt[i] == 0 && truth:
				n.changeAt[i] = w.now + 10*ms + w.upTo(1500*ms)
			case n.changeAt[i] == 0:
				n.changeAt[i] = w.now + 200*ms + w.upTo(2500*ms)
			case w.now < n.changeAt[i]:
			case truth:
				n.up(o)
			default:
				n.down(o)
			}
		}
	}
	w.noteApart()
	w.checkCalm()
	w.checkTraffic()
	w.after(50*ms, w.detectFailures)
}
