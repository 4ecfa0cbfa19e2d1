package claims

import (
	"cmp"
	"slices"
	"time"
)

// Config is what a Machine needs to know.
type Config struct {
	Self     Node
	Name     string // of the voter, the same at each start
	Observer bool   // sees everything, votes on nothing and claims nothing
}

// Instant is a moment, read from the two clocks of a node.
type Instant struct {
	Wall time.Time     // the time of day, which may jump: for the hybrid clock only
	Up   time.Duration // boottime.Now, which does not: for all that runs out
}

// Timing of the protocol, in ticks of one second, and bounds.
const (
	silentAfter = 4    // pings in a row without an answer (rule 13)
	idleTicks   = 60   // an id nobody claims is forgotten after so many
	goneTicks   = 120  // the States of a departed node are kept so long
	busyAcks    = 100  // acknowledgements between two ticks from which on a peer is busy
	maxStrays   = 1024 // nodes never seen in view whose States are kept
)

// EventKind says what happened to a claim of this node.
type EventKind int

const (
	// Granted: the lease is handed out, or its token was raised.
	Granted EventKind = iota + 1
	// Conflict: another holder was kept. The claim is gone; make a new one.
	Conflict
)

// Event is something the machine decided about a claim of this node.
type Event struct {
	Kind  EventKind
	ID    string
	Claim Claim
	Token uint64
	Since time.Time // Granted: when the claim won
}

// Holder is a claim that holds an id.
type Holder struct {
	ID    string
	Claim Claim
	Token uint64
	Meta  string
	Since time.Time
}

// Machine is the protocol of one node, for all ids. Feed it with Tick (once a
// second), Receive, NodeUp, NodeDown, Acquire and Release; after each, carry
// out what Events and, for each node of Outbox, Message return. It must not be
// used concurrently.
type Machine struct {
	cfg    Config
	clock  hybridClock
	seq    uint64
	ticks  uint64
	peers  []*peer // by index, nil where a forgotten peer was
	byNode map[Node]*peer
	ids    map[string]*record

	idleTicks int // the constants above, but for tests
	goneTicks uint64
	forgotten uint64 // the highest floor of an id that was forgotten

	touched []*record // to be settled before the input is done with
	waiting []*record // not acknowledged by all, or idle: looked at each tick
	events  []Event
	live    []liveClaim // scratch of settle
}

// peer is another node, in view or remembered.
type peer struct {
	node       Node
	name       string
	index      int
	inView     bool
	everInView bool
	voter      bool
	leftAt     uint64 // tick
	since      HLC    // when it came into our view
	heldSince  HLC    // when we came into its view, as it says
	unanswered int    // pings in a row
	acks       int    // since the last tick
	busy       bool   // acknowledging many, before the last tick
	pinged     uint64 // number of the last ping
	answered   uint64 // number of the last one answered
	pingDue    bool
	pongDue    uint64
	outbox     []*record // those whose link to this peer says send
}

// silent: in view, but it does not answer (rule 13).
func (p *peer) silent() bool { return p.unanswered >= silentAfter }

// counts says whether p is a voter that an election waits for.
func (p *peer) counts() bool { return p.inView && p.voter && !p.silent() }

// record is what a node keeps of one id (rule 1).
type record struct {
	id      string
	ver     HLC
	state   *State // as published under ver; nil before the first
	vote    Vote
	floor   uint64
	own     []*ownClaim
	links   []link // by peer.index
	changed bool   // since ver
	touched bool
	waiting bool
	idle    int // ticks without anything to say
}

// link is what a node keeps of one id and one peer.
type link struct {
	state *State // the peer's newest
	acked HLC    // my version that the peer has
	gave  uint64 // highest epoch of its vote that I gave back
	ret   uint64 // highest epoch of my vote that it gave back
	send  bool   // it is in the peer's outbox
	sent  uint64 // tick of the last sending
}

// ownClaim is a claim of this node.
type ownClaim struct {
	Claim
	meta       string
	stopWithin time.Duration
	token      uint64 // zero: waiting
	won        uint64
	shown      uint64 // the token handed out; zero: none yet
	tokenVer   HLC    // version of the State that shows the token; zero: not yet published
	raisedAt   uint64 // tick of the last change of the token
	rivals     []rival
}

// rival is another holder that this one has met (rules 14 and 15).
type rival struct {
	claim   Claim
	raised  HLC // version to be acknowledged before votes are counted; zero: not yet published
	counted bool
	votes   int
}

// New returns the machine of a node that is alone and starts now.
func New(now Instant, cfg Config) *Machine {
	return &Machine{cfg: cfg, byNode: map[Node]*peer{}, ids: map[string]*record{}, idleTicks: idleTicks, goneTicks: goneTicks}
}

// HLC returns the newest clock value used or heard of.
func (m *Machine) HLC() HLC { return m.clock.last }

// MergeHLC makes sure that claims made from now on are younger than h. Nodes
// exchange their clocks when one joins, before it makes a claim (rule 5).
// Values out of range are ignored.
func (m *Machine) MergeHLC(h HLC) {
	if h < maxHLC {
		m.clock.merge(h)
	}
}

// Acquire makes a claim for id. It lasts until Release or a Conflict event. The
// holder has to be told stopWithin before the lease runs out.
func (m *Machine) Acquire(now Instant, id, meta string, stopWithin time.Duration) Claim {
	m.seq++
	c := Claim{Node: m.cfg.Self, Seq: m.seq, Stamp: m.clock.next(now)}
	r := m.record(now, id)
	r.own = append(r.own, &ownClaim{Claim: c, meta: meta, stopWithin: stopWithin})
	r.changed = true
	m.touch(r)
	m.finish(now)
	return c
}

// Release removes a claim, be it waiting or a holder. It does nothing if the
// claim is no more.
func (m *Machine) Release(now Instant, id string, c Claim) {
	r := m.ids[id]
	if r == nil {
		return
	}
	if i := slices.IndexFunc(r.own, func(o *ownClaim) bool { return o.Claim == c }); i >= 0 {
		m.drop(r, r.own[i])
		m.touch(r)
		m.finish(now)
	}
}

func (m *Machine) drop(r *record, o *ownClaim) {
	r.own = slices.DeleteFunc(r.own, func(x *ownClaim) bool { return x == o })
	r.changed = true
}

// NodeUp says that n is in view, as a voter or as an observer. Its name is the
// same at each of its starts.
func (m *Machine) NodeUp(now Instant, n Node, name string, voter bool) {
	if n == m.cfg.Self || n == 0 {
		return
	}
	p := m.peer(n)
	if !p.inView {
		p.since = m.clock.next(now)
	}
	p.inView, p.everInView, p.name, p.voter = true, true, name, voter
	p.unanswered = 0
	m.sendEvery(p)
	m.finish(now)
}

// sendEvery sends p every id (rule 3).
func (m *Machine) sendEvery(p *peer) {
	for _, r := range m.sorted() {
		m.send(r, p)
		m.wait(r)
		m.touch(r)
	}
}

// rejoined notes since when p has this node in its view. When it had given
// this node up in between, it may have forgotten ids whose last word did not
// come here, so all that this node knows is told anew.
func (m *Machine) rejoined(p *peer, since HLC) {
	if since <= p.heldSince {
		return
	}
	again := p.heldSince != 0
	p.heldSince = since
	if !again {
		return
	}
	for _, r := range m.ids {
		m.link(r, p).acked = 0
	}
	if p.inView {
		m.sendEvery(p)
	}
}

// NodeDown says that n has left the view: it ended, or the failure detector
// gave it up. Its States are kept, as it may come back (rule 4).
func (m *Machine) NodeDown(now Instant, n Node) {
	p := m.byNode[n]
	if p == nil || !p.inView {
		return
	}
	p.inView, p.leftAt = false, m.ticks
	p.pingDue, p.pongDue = false, 0
	m.clearOutbox(p)
	m.touchAll()
	m.finish(now)
}

// Tick is to be called once a second.
func (m *Machine) Tick(now Instant) {
	m.ticks++
	for _, p := range m.peers {
		switch {
		case p == nil:
		case p.inView:
			m.ping(p)
		case m.ticks-p.leftAt > m.goneTicks:
			m.forgetPeer(p)
		}
	}
	m.waiting = slices.DeleteFunc(m.waiting, func(r *record) bool {
		r.waiting = m.lookAgain(r)
		return !r.waiting
	})
	m.finish(now)
}

func (m *Machine) ping(p *peer) {
	wasSilent := p.silent()
	p.busy, p.acks = p.acks >= busyAcks, 0
	p.unanswered++
	p.pinged++
	p.pingDue = true
	if p.silent() != wasSilent {
		m.touchAll()
	}
}

// heard notes that p answered something.
func (m *Machine) heard(p *peer) {
	wasSilent := p.silent()
	p.unanswered = 0
	if wasSilent {
		m.touchAll()
	}
}

// lookAgain sends r to those who have not acknowledged it for a second (rule
// 3) and forgets it when nobody has a use for it. It returns whether there is
// a reason to look again at the next tick. What was sent less than a second ago
// is sent again, too, unless the peer is busy acknowledging: thousands of
// States that are on their way should not go twice.
func (m *Machine) lookAgain(r *record) bool {
	acked := true
	for _, p := range m.peers {
		if p == nil || !p.inView {
			continue
		}
		l := m.link(r, p)
		if l.acked >= r.ver {
			continue
		}
		acked = false
		if l.sent+1 < m.ticks || !p.busy {
			m.send(r, p)
		}
	}
	if r.inUse() {
		r.idle = 0
		m.touch(r) // a token may have to be raised (rule 16)
		return !acked || r.raiseDue()
	}
	r.idle++
	if r.idle <= m.idleTicks || !acked || r.unsent() || r.touched {
		return true
	}
	m.forgotten = max(m.forgotten, r.floor)
	delete(m.ids, r.id)
	return false
}

// inUse says whether a claim for r is known or its vote is not free.
func (r *record) inUse() bool {
	return len(r.own) > 0 || r.vote.Claim != (Claim{}) ||
		slices.ContainsFunc(r.links, func(l link) bool { return l.state != nil && len(l.state.Claims) > 0 })
}

// unsent says whether r is in an outbox.
func (r *record) unsent() bool {
	return slices.ContainsFunc(r.links, func(l link) bool { return l.send })
}

func (r *record) raiseDue() bool {
	return slices.ContainsFunc(r.own, func(o *ownClaim) bool { return o.token != 0 && r.floor > o.token })
}

// Receive takes a message. One that is not for this start of this node, or
// out of range, is dropped.
func (m *Machine) Receive(now Instant, msg Message) {
	if msg.To != m.cfg.Self || msg.From == m.cfg.Self || msg.From == 0 || !msg.sane() {
		return
	}
	m.clock.merge(msg.HLC)
	p := m.byNode[msg.From]
	if p == nil {
		if m.strays() >= maxStrays {
			return
		}
		p = m.peer(msg.From)
		p.leftAt = m.ticks
	}
	m.rejoined(p, msg.Since)
	if msg.Pong > p.answered && msg.Pong <= p.pinged {
		p.answered = msg.Pong
		m.heard(p)
	}
	if msg.Ping != 0 && p.inView {
		p.pongDue = msg.Ping
	}
	for _, u := range msg.Updates {
		m.update(now, p, u)
	}
	m.finish(now)
}

// update takes the State of a peer (rule 4).
func (m *Machine) update(now Instant, p *peer, u Update) {
	r := m.record(now, u.ID)
	l := m.link(r, p)
	if u.Seen != 0 && r.ver == 0 {
		r.changed = true // the peer remembers what was forgotten here
	}
	if u.Seen > l.acked && u.Seen <= r.ver {
		l.acked = u.Seen
		p.acks++
		m.heard(p)
	}
	l.ret = max(l.ret, min(u.Gave, r.vote.Epoch))
	if l.state == nil || u.Ver > l.state.Ver {
		l.state = u.State
		r.raiseFloor(u.State)
		m.clock.merge(HLC(r.floor))
	}
	if u.WantAck && p.inView {
		m.send(r, p)
	}
	m.wait(r)
	m.touch(r)
}

func (r *record) raiseFloor(s *State) {
	r.floor = max(r.floor, s.Floor)
	for _, c := range s.Claims {
		r.floor = max(r.floor, c.Token)
	}
}

// sane says whether no number in msg would take a counter near its end.
func (msg *Message) sane() bool {
	if msg.HLC >= maxHLC || msg.Since >= maxHLC {
		return false
	}
	for _, u := range msg.Updates {
		if u.Ver >= maxHLC || u.Floor >= uint64(maxHLC) || u.Vote.Epoch >= uint64(maxHLC) {
			return false
		}
		for _, c := range u.Claims {
			if c.Token >= uint64(maxHLC) || c.Stamp >= maxHLC {
				return false
			}
		}
	}
	return true
}

// Events returns what was decided since the last call.
func (m *Machine) Events() []Event {
	events := m.events
	m.events = nil
	return events
}

// Outbox appends to nodes those that there is something to tell, and returns
// it.
func (m *Machine) Outbox(nodes []Node) []Node {
	for _, p := range m.peers {
		if p != nil && p.inView && (p.pingDue || p.pongDue != 0 || len(p.outbox) > 0) {
			nodes = append(nodes, p.node)
		}
	}
	return nodes
}

// Message returns what there is to tell n, at most limit States of it; n is one
// of those that Outbox returned since the last input. What is not fetched is
// not queued: it is made when it is asked for, and is then the newest.
func (m *Machine) Message(now Instant, n Node, limit int) Message {
	p := m.byNode[n]
	msg := Message{From: m.cfg.Self, To: n, HLC: m.clock.next(now), Since: p.since, Pong: p.pongDue}
	if p.pingDue {
		msg.Ping = p.pinged
	}
	p.pingDue, p.pongDue = false, 0
	batch := p.outbox[:min(limit, len(p.outbox))]
	p.outbox = p.outbox[len(batch):]
	msg.Updates = make([]Update, 0, len(batch))
	for _, r := range batch {
		l := &r.links[p.index]
		l.send, l.sent = false, m.ticks
		if r.state == nil { // nothing was ever said about it
			r.state = m.newState(r)
		}
		u := Update{State: r.state, Gave: l.gave, WantAck: l.acked < r.ver}
		if l.state != nil {
			u.Seen = l.state.Ver
		}
		msg.Updates = append(msg.Updates, u)
	}
	return msg
}

// Repeat sends the State of id to n again if n has not acknowledged version ver
// of it, and returns whether it does. It is for transports that know earlier
// than the tick when a message may have been lost.
func (m *Machine) Repeat(n Node, id string, ver HLC) bool {
	p, r := m.byNode[n], m.ids[id]
	if p == nil || !p.inView || r == nil || m.link(r, p).acked >= ver {
		return false
	}
	m.send(r, p)
	return true
}

// Holder returns who holds id, as far as this node knows.
func (m *Machine) Holder(id string) (Holder, bool) {
	if r := m.ids[id]; r != nil {
		return m.holder(r)
	}
	return Holder{}, false
}

// Holders returns all holders that this node knows of, sorted by id.
func (m *Machine) Holders() []Holder {
	var all []Holder
	for _, r := range m.ids {
		if h, ok := m.holder(r); ok {
			all = append(all, h)
		}
	}
	slices.SortFunc(all, func(a, b Holder) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

func (m *Machine) holder(r *record) (Holder, bool) {
	best := bestClaim(m.liveClaims(r))
	if best == nil || best.token == 0 {
		return Holder{}, false
	}
	return Holder{ID: r.id, Claim: best.Claim, Token: best.token, Meta: best.meta, Since: HLC(best.won).Time()}, true
}

// record returns what is kept of id. A new one may have been forgotten before:
// its epoch starts at the clock, above all that were used then, and its floor
// is not below the one it had.
func (m *Machine) record(now Instant, id string) *record {
	r := m.ids[id]
	if r == nil {
		r = &record{id: id, vote: Vote{Epoch: uint64(m.clock.next(now))}, floor: m.forgotten}
		m.ids[id] = r
		m.wait(r)
	}
	return r
}

// link returns what is kept of r and p.
func (m *Machine) link(r *record, p *peer) *link {
	if need := p.index + 1 - len(r.links); need > 0 {
		r.links = slices.Grow(r.links, len(m.peers)-len(r.links))
		r.links = r.links[:p.index+1]
	}
	return &r.links[p.index]
}

func (m *Machine) peer(n Node) *peer {
	p := m.byNode[n]
	if p == nil {
		p = &peer{node: n, index: slices.Index(m.peers, nil)}
		if p.index < 0 {
			p.index = len(m.peers)
			m.peers = append(m.peers, nil)
		}
		m.peers[p.index] = p
		m.byNode[n] = p
	}
	return p
}

// strays counts the nodes that sent something and were never in view.
func (m *Machine) strays() int {
	n := 0
	for _, p := range m.peers {
		if p != nil && !p.everInView {
			n++
		}
	}
	return n
}

func (m *Machine) forgetPeer(p *peer) {
	for _, r := range m.sorted() {
		if p.index < len(r.links) {
			r.links[p.index] = link{}
		}
		m.wait(r)
	}
	m.peers[p.index] = nil
	delete(m.byNode, p.node)
}

func (m *Machine) clearOutbox(p *peer) {
	for _, r := range p.outbox {
		r.links[p.index].send = false
	}
	p.outbox = nil
}

func (m *Machine) send(r *record, p *peer) {
	if l := m.link(r, p); !l.send {
		l.send = true
		p.outbox = append(p.outbox, r)
	}
}

func (m *Machine) wait(r *record) {
	if !r.waiting {
		r.waiting = true
		m.waiting = append(m.waiting, r)
	}
}

func (m *Machine) touch(r *record) {
	if !r.touched {
		r.touched = true
		m.touched = append(m.touched, r)
	}
}

func (m *Machine) touchAll() {
	for _, r := range m.sorted() {
		m.touch(r)
	}
}

// sorted returns all records in the order of their ids, so that a run of the
// simulation can be repeated.
func (m *Machine) sorted() []*record {
	all := make([]*record, 0, len(m.ids))
	for _, r := range m.ids {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *record) int { return cmp.Compare(a.id, b.id) })
	return all
}
