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

	// Quorum is how many votes of voters with different names a lease takes, more
	// than half of Voters, which is how many there are. Zero is available mode.
	Quorum, Voters int
	TTL            time.Duration // quorum mode: how long a vote is bound without a word

	// SilentAfter is for tests that share a busy machine: in place of the 4 pings in
	// a row without an answer after which a node is silent (rule 13).
	SilentAfter int
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
	// Conflict: available mode; another holder was kept. The claim is gone; make a
	// new one.
	Conflict
	// Expired: quorum mode; the lease has run out, or, before it was handed out,
	// nearly so. The claim is gone; make a new one.
	Expired
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
// second), Advance (when NextAdvance says), Receive, NodeUp, NodeDown, Goodbye,
// Dead, Acquire and Release; after each, carry out what Events and, for each
// node of Outbox, Message return. It must not be used concurrently.
type Machine struct {
	cfg    Config
	mode   mode
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
	goodbye    bool   // it has left by itself
	dead       bool   // its process is gone; nothing is heard of it any more
	leftAt     uint64 // tick
	since      HLC    // when it came into our view
	heldSince  HLC    // when we came into its view, as it says
	unanswered int    // pings in a row
	patience   int    // for so many of them
	acks       int    // since the last tick
	busy       bool   // acknowledging many, before the last tick
	pinged     uint64 // number of the last ping
	answered   uint64 // number of the last one answered
	pingDue    bool
	pongDue    uint64
	outbox     []*record // those whose link to this peer says send
	tie        tie
}

// silent: in view, but it does not answer (rule 13).
func (p *peer) silent() bool { return p.unanswered >= p.patience }

// counts says whether p is a voter that an election waits for.
func (p *peer) counts() bool { return p.inView && p.voter && !p.silent() }

// record is what a node keeps of one id (rule 1).
type record struct {
	id       string
	ver      HLC
	state    *State // as published under ver; nil before the first
	vote     Vote
	floor    uint64
	own      []*ownClaim
	links    []link // by peer.index
	changed  bool   // since ver
	touched  bool
	waiting  bool
	awaiting bool // of quorum mode: in its list of that name
	idle     int  // ticks without anything to say
}

// link is what a node keeps of one id and one peer.
type link struct {
	state *State // the peer's newest
	bind  uint64 // under which that came (rule Q3)
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

	// Quorum mode.
	record *record
	until  time.Duration // the end of the lease, as far as it was looked at
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
	m := &Machine{cfg: cfg, byNode: map[Node]*peer{}, ids: map[string]*record{}, idleTicks: idleTicks, goneTicks: goneTicks}
	if cfg.Quorum > 0 {
		m.mode = newQuorum(m, now)
	} else {
		m.mode = &available{m}
	}
	return m
}

// HLC returns the newest clock value used or heard of.
func (m *Machine) HLC() HLC { return m.clock.last }

// MergeHLC makes sure that claims made from now on are younger than h. Nodes
// exchange their clocks when one joins, before it makes a claim (rule 5).
// Values out of range are ignored.
func (m *Machine) MergeHLC(now Instant, h HLC) {
	if h < bound(now.Wall) {
		m.clock.merge(h)
	}
}

// Acquire makes a claim for id. It lasts until Release, or a Conflict or Expired
// event. A lease that runs out is handed out when more than stopWithin of it is
// left: that must be less than half of the TTL.
func (m *Machine) Acquire(now Instant, id, meta string, stopWithin time.Duration) Claim {
	m.mode.look(now)
	m.seq++
	c := Claim{Node: m.cfg.Self, Seq: m.seq, Stamp: m.clock.next(now)}
	r := m.record(now, id)
	o := &ownClaim{Claim: c, meta: meta, stopWithin: stopWithin, record: r}
	r.own = append(r.own, o)
	r.changed = true
	m.mode.claimed(o)
	m.touch(r)
	m.finish(now)
	return c
}

// Release removes a claim, be it waiting or a holder. It does nothing if the
// claim is no more.
func (m *Machine) Release(now Instant, id string, c Claim) {
	m.mode.look(now)
	if r := m.ids[id]; r != nil {
		if o := r.ownClaim(c); o != nil {
			m.drop(r, o)
		}
	}
	m.finish(now)
}

func (m *Machine) drop(r *record, o *ownClaim) {
	r.own = slices.DeleteFunc(r.own, func(x *ownClaim) bool { return x == o })
	r.changed = true
	m.mode.dropped(o)
	m.touch(r)
}

// NodeUp says that n is in view, as a voter or as an observer. Its name is the
// same at each of its starts.
func (m *Machine) NodeUp(now Instant, n Node, name string, voter bool) {
	if n == m.cfg.Self || n == 0 {
		return
	}
	m.mode.look(now)
	p := m.peer(n)
	if p.dead {
		m.finish(now)
		return
	}
	if !p.inView {
		p.since = m.clock.next(now)
	}
	m.mode.joining(p)
	p.inView, p.everInView, p.goodbye, p.name, p.voter = true, true, false, name, voter
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
	m.mode.look(now)
	if p := m.byNode[n]; p != nil {
		m.leave(p)
	}
	m.finish(now)
}

// Goodbye says that n has left the view by itself, and will not be back: its
// name is soon free for another voter.
func (m *Machine) Goodbye(now Instant, n Node) {
	m.mode.look(now)
	if p := m.byNode[n]; p != nil {
		p.goodbye = true
		m.leave(p)
	}
	m.finish(now)
}

// Dead says that the process of n, and all that it ran, is proved to be gone. Its
// claims are gone with it, and nothing is heard of it any more (rule Q6).
func (m *Machine) Dead(now Instant, n Node) {
	if n == m.cfg.Self || n == 0 {
		return
	}
	m.mode.look(now)
	if p := m.known(n); p != nil && !p.dead {
		m.mode.died(p)
		m.leave(p)
		p.dead, p.leftAt = true, m.ticks
		for _, r := range m.ids {
			m.link(r, p).state = nil
		}
		m.touchAll()
	}
	m.finish(now)
}

func (m *Machine) leave(p *peer) {
	if !p.inView {
		return
	}
	p.inView, p.leftAt = false, m.ticks
	m.clearOutbox(p)
	m.touchAll()
}

// Tick is to be called once a second.
func (m *Machine) Tick(now Instant) {
	m.mode.look(now)
	m.ticks++
	m.mode.tick()
	for _, p := range m.peers {
		if p == nil {
			continue
		}
		p.busy, p.acks = p.acks >= busyAcks, 0
		if !p.inView && m.ticks-p.leftAt > m.goneTicks && !m.mode.keeps(p) {
			m.forgetPeer(p)
		}
	}
	m.waiting = slices.DeleteFunc(m.waiting, func(r *record) bool {
		r.waiting = m.lookAgain(r)
		return !r.waiting
	})
	m.finish(now)
}

// Advance looks whether something has run out. In quorum mode it must be called
// when NextAdvance says; earlier does no harm.
func (m *Machine) Advance(now Instant) {
	m.mode.look(now)
	m.finish(now)
}

// NextAdvance returns when Advance must be called at the latest, on the Up clock;
// false if there is no need. Each input may change it.
func (m *Machine) NextAdvance() (at time.Duration, ok bool) { return m.mode.next() }

// Votes says whether this node votes: one that has just started does not at first
// (rule Q5), an observer never does.
func (m *Machine) Votes() bool { return !m.cfg.Observer && m.mode.mayVote() }

// Expires returns when the lease of c, a claim of this node, ends on the Up clock,
// as far as renewals are known: it never goes back. It is 0 in available mode, and
// if c has no lease.
func (m *Machine) Expires(c Claim) time.Duration { return m.mode.expires(c) }

// Support returns who has renewed c, a claim of this node, with a beat sent after
// since on the Up clock, and who has not. It is zero in available mode.
func (m *Machine) Support(c Claim, since time.Duration) Support { return m.mode.support(c, since) }

// Excess returns the names of all voters that are known when they are more than
// Config.Voters; nil otherwise. This node wins nothing then, as others might
// have won with other votes.
func (m *Machine) Excess() []string { return m.mode.excess() }

// Shared returns the names that several nodes share that may all be alive. Their
// votes do not count in quorum mode.
func (m *Machine) Shared() []string { return m.mode.shared() }

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
		return !acked || m.mode.unfinished(r)
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

// Receive takes a message. One that is not for this start of this node, or
// out of range, is dropped.
func (m *Machine) Receive(now Instant, msg Message) {
	if msg.To != m.cfg.Self || msg.From == m.cfg.Self || msg.From == 0 || !msg.sane(now.Wall) {
		return
	}
	m.mode.look(now)
	if p := m.known(msg.From); p != nil && !p.dead {
		m.clock.merge(msg.HLC)
		m.rejoined(p, msg.Since)
		m.mode.receive(now, p, &msg)
		for _, u := range msg.Updates {
			m.update(now, p, u, msg.Bind)
		}
	}
	m.finish(now)
}

// known returns what is kept of n, who may never have been in view; nil if it is
// one too many of these.
func (m *Machine) known(n Node) *peer {
	p := m.byNode[n]
	if p == nil && m.strays() < maxStrays {
		p = m.peer(n)
		p.leftAt = m.ticks
	}
	return p
}

// update takes the State of a peer (rule 4).
func (m *Machine) update(now Instant, p *peer, u Update, bind uint64) {
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
		l.state, l.bind = u.State, bind
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

// sane says whether no number in msg is further ahead than any can be.
func (msg *Message) sane(now time.Time) bool {
	limit := bound(now)
	if msg.HLC >= limit || msg.Since >= limit || msg.Bind >= uint64(limit) {
		return false
	}
	for _, t := range []time.Duration{msg.Beat.K, msg.Beat.Echo, msg.Back.K, msg.Back.Stamp} {
		if t < 0 || t >= maxUp {
			return false
		}
	}
	for _, u := range msg.Updates {
		if u.Ver >= limit || u.Floor >= uint64(limit) || u.Vote.Epoch >= uint64(limit) {
			return false
		}
		for _, c := range u.Claims {
			if c.Token >= uint64(limit) || c.Stamp >= limit {
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
		if p != nil && (len(p.outbox) > 0 || m.mode.due(p)) {
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
	msg := Message{From: m.cfg.Self, To: n, HLC: m.clock.next(now), Since: p.since}
	m.mode.say(now, p, &msg)
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
		p = &peer{node: n, index: slices.Index(m.peers, nil), patience: cmp.Or(m.cfg.SilentAfter, silentAfter)}
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
