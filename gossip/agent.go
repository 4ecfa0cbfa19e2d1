package gossip

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"highlander"
	"highlander/internal/claims"
)

const (
	tickEvery    = time.Second // the tick of the claims machine
	maxOpsInTurn = 4096        // inputs taken before the outputs are carried out
	maxBatch     = 2000        // States in one message
	maxTold      = 4           // short messages that wait for one node's sender
	maxPosted    = 4096        // inputs from packets that wait for the agent

	observerMeta = 'o' // memberlist's meta of an observer
)

// The first byte of a user message.
const (
	kindClaims   = 'c' // a claims.Message
	kindPacket   = 'p' // a claims.Message in a packet
	kindGoodbye  = 'g' // sender's name: I am leaving
	kindDeparted = 'd' // name of a node whose process is gone
	kindQuestion = 'q' // sender's name: are you there?
	kindAnswer   = 'a' // sender's name: I am
)

// agent owns the claims machine and everything that goes with it. Its goroutine
// runs one input after the other (do, post), then carries out what the machine
// says.
type agent struct {
	c       *Cluster
	log     *slog.Logger
	self    claims.Node
	machine *claims.Machine
	leases  map[claims.Claim]*lease
	nodes   map[claims.Node]*node // known to memberlist, this one not
	outbox  []claims.Node         // scratch of flush
	quiet   []chan struct{}       // closed when all that there was to say is said
	packet  []byte                // scratch of dispatch
	confirm *time.Timer           // runs while confirming

	confirming bool // packets wait to be acknowledged

	inputs  chan func(now time.Time)
	stopped chan struct{} // closed when the goroutine has ended
	quit    chan struct{}
	senders sync.WaitGroup

	// What comes from memberlist's callbacks, which must not block.
	mu      sync.Mutex
	posted  []func(now time.Time)
	wake    chan struct{}
	hlc     claims.HLC // for the exchange at join
	met     bool       // a clock was exchanged
	members []Member
	changed chan struct{} // closed when members changes
}

// node is another node that memberlist knows.
type node struct {
	id       claims.Node
	name     string
	addr     string
	list     memberlist.Node
	observer bool
	leaving  bool // it has said goodbye
	departed bool // its process is gone, though memberlist does not know yet
	out      chan outgoing
	busy     bool
	failed   bool // the last message did not go out: wait for the tick
	packets  packetRecord
}

// outgoing is what a sender sends: a message, or raw bytes.
type outgoing struct {
	msg claims.Message
	raw []byte
}

func newAgent(c *Cluster, cfg claims.Config) *agent {
	a := &agent{
		c: c, log: c.log, self: cfg.Self, machine: claims.New(cfg),
		leases: map[claims.Claim]*lease{}, nodes: map[claims.Node]*node{},
		inputs: make(chan func(time.Time)), stopped: make(chan struct{}), quit: make(chan struct{}),
		wake: make(chan struct{}, 1), changed: make(chan struct{}),
		confirm: time.NewTimer(time.Hour),
	}
	a.confirm.Stop()
	return a
}

func (a *agent) start() {
	a.members = []Member{a.selfMember()}
	go a.run()
}

// stop ends the goroutine and the senders, and waits.
func (a *agent) stop() {
	close(a.quit)
	<-a.stopped
	a.senders.Wait()
}

func (a *agent) run() {
	defer close(a.stopped)
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	defer a.confirm.Stop()
	for {
		select {
		case input := <-a.inputs:
			input(time.Now())
			a.runMore()
		case <-a.wake:
			a.runPosted()
		case <-tick.C:
			a.tick(time.Now())
		case <-a.confirm.C:
			a.repeatLost()
		case <-a.quit:
			a.end()
			return
		}
		a.flush(time.Now())
	}
}

// runMore takes what else is waiting, so that it goes out in one message.
func (a *agent) runMore() {
	for range maxOpsInTurn {
		select {
		case input := <-a.inputs:
			input(time.Now())
		default:
			return
		}
	}
}

func (a *agent) runPosted() {
	a.mu.Lock()
	posted := a.posted
	a.posted = nil
	a.mu.Unlock()
	for _, input := range posted {
		input(time.Now())
	}
}

// do runs an input on the agent's goroutine and waits for it; false if the
// agent has stopped.
func (a *agent) do(input func(now time.Time)) bool {
	ran := make(chan struct{})
	select {
	case a.inputs <- func(now time.Time) { input(now); close(ran) }:
		<-ran
		return true
	case <-a.stopped:
		return false
	}
}

// post has an input run soon, and does not block.
func (a *agent) post(input func(now time.Time)) {
	a.mu.Lock()
	a.posted = append(a.posted, input)
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *agent) tick(now time.Time) {
	a.machine.Tick(now)
	for _, n := range a.nodes {
		n.failed = false
		if n.departed && !n.leaving {
			a.question(n)
		}
	}
}

// end closes what is left when the agent stops.
func (a *agent) end() {
	for _, l := range a.leases {
		l.end(highlander.ErrClosed)
	}
	for _, n := range a.nodes {
		close(n.out)
	}
}

// flush carries out what the machine says.
func (a *agent) flush(now time.Time) {
	for events := a.machine.Events(); len(events) > 0; events = a.machine.Events() {
		for _, e := range events {
			a.carryOut(now, e)
		}
	}
	a.outbox = a.machine.Outbox(a.outbox[:0])
	for _, id := range a.outbox {
		if n := a.nodes[id]; n != nil && !n.busy && !n.failed {
			a.dispatch(n, a.machine.Message(now, id, maxBatch))
		}
	}
	if len(a.quiet) > 0 && a.allSaid() {
		for _, said := range a.quiet {
			close(said)
		}
		a.quiet = nil
	}
	a.mu.Lock()
	a.hlc = a.machine.HLC()
	a.mu.Unlock()
}

func (a *agent) carryOut(now time.Time, e claims.Event) {
	l := a.leases[e.Claim]
	if l == nil {
		return
	}
	switch e.Kind {
	case claims.Granted:
		if l.phase == leaseHeld {
			a.log.Info("raised the token after a netsplit", "id", l.id, "token", e.Token)
		}
		l.grant(e.Token)
	case claims.Conflict:
		delete(a.leases, e.Claim)
		if l.phase == leaseWaiting { // nobody knew of it: queue up again
			a.claim(now, l)
			return
		}
		a.log.Info("lost the lease to another holder", "id", l.id, "token", l.Token())
		l.end(highlander.ErrConflict)
	}
}

func (a *agent) claim(now time.Time, l *lease) {
	l.claim = a.machine.Acquire(now, l.id, l.meta)
	a.leases[l.claim] = l
}

func (a *agent) release(now time.Time, l *lease) {
	if l.phase == leaseEnded {
		return
	}
	delete(a.leases, l.claim)
	a.machine.Release(now, l.id, l.claim)
	l.end(highlander.ErrClosed)
}

// endLeases releases everything and gives the messages that say so some time
// to go out.
func (a *agent) endLeases() {
	a.do(func(now time.Time) {
		for _, l := range a.leases {
			a.release(now, l)
		}
		for _, n := range a.nodes {
			a.tell(n, kindGoodbye, a.c.name)
		}
	})
	said := make(chan struct{})
	if a.do(func(time.Time) { a.quiet = append(a.quiet, said) }) {
		select {
		case <-said:
		case <-time.After(closeTimeout):
		}
	}
}

func (a *agent) holder(id string) (highlander.Holder, bool) {
	h, ok := a.machine.Holder(id)
	return a.publicHolder(h), ok
}

func (a *agent) holders() []highlander.Holder {
	var all []highlander.Holder
	for _, h := range a.machine.Holders() {
		all = append(all, a.publicHolder(h))
	}
	return all
}

func (a *agent) publicHolder(h claims.Holder) highlander.Holder {
	name := a.c.name
	if n := a.nodes[h.Claim.Node]; n != nil {
		name = n.name
	}
	return highlander.Holder{ID: h.ID, Node: name, Meta: h.Meta, Token: h.Token, Since: h.Since}
}

// --- what memberlist tells

// NodeMeta implements memberlist.Delegate.
func (a *agent) NodeMeta(int) []byte {
	if a.c.cfg.Observer {
		return []byte{observerMeta}
	}
	return nil
}

// GetBroadcasts implements memberlist.Delegate.
func (a *agent) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate: the clocks are exchanged when a
// node joins (rule 5 of the claims).
func (a *agent) LocalState(bool) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return binary.BigEndian.AppendUint64(nil, uint64(a.hlc))
}

// MergeRemoteState implements memberlist.Delegate.
func (a *agent) MergeRemoteState(b []byte, _ bool) {
	if len(b) != 8 {
		a.c.dropped.count("the clock of a node is not 8 bytes long")
		return
	}
	hlc := claims.HLC(binary.BigEndian.Uint64(b))
	a.post(func(time.Time) {
		a.machine.MergeHLC(hlc)
		a.mu.Lock()
		defer a.mu.Unlock()
		if !a.met {
			a.met = true
			a.announce()
		}
	})
}

// NotifyAlive implements memberlist.AliveDelegate: it refuses strangers.
func (a *agent) NotifyAlive(n *memberlist.Node) error {
	_, incarnation, err := splitName(n.Name)
	if err != nil {
		return err
	}
	if claims.Node(incarnation) == a.self && n.Name != a.c.name || incarnation == 0 {
		return fmt.Errorf("node name %q: the incarnation is not its own", n.Name)
	}
	return nil
}

// NotifyJoin implements memberlist.EventDelegate.
func (a *agent) NotifyJoin(n *memberlist.Node) {
	if n.Name == a.c.name {
		return
	}
	copied := *n
	a.post(func(now time.Time) { a.nodeJoined(now, copied) })
}

// NotifyLeave implements memberlist.EventDelegate.
func (a *agent) NotifyLeave(n *memberlist.Node) {
	if n.Name == a.c.name {
		return
	}
	name := n.Name
	a.post(func(now time.Time) { a.nodeLeft(now, name) })
}

// NotifyUpdate implements memberlist.EventDelegate: the meta of a node never
// changes.
func (a *agent) NotifyUpdate(*memberlist.Node) {}

// NotifyMsg implements memberlist.Delegate.
func (a *agent) NotifyMsg(b []byte) {
	if len(b) == 0 {
		a.c.dropped.count("empty message")
		return
	}
	switch b[0] {
	case kindClaims:
		msg, err := claims.ParseMessage(b[1:])
		if err != nil {
			a.c.dropped.count(err.Error())
			return
		}
		a.do(func(now time.Time) { a.machine.Receive(now, msg) })
	case kindPacket:
		a.receivePacket(b[1:])
	case kindGoodbye:
		name := string(b[1:])
		a.do(func(now time.Time) { a.nodeSaidGoodbye(now, name) })
	case kindDeparted:
		name := string(b[1:])
		a.do(func(now time.Time) { a.nodeDeparted(now, name) })
	case kindQuestion:
		name := string(b[1:])
		a.do(func(time.Time) { a.answer(name) })
	case kindAnswer:
		name := string(b[1:])
		a.do(func(now time.Time) { a.nodeAnswered(now, name) })
	default:
		a.c.dropped.count(fmt.Sprintf("message of unknown kind %d", b[0]))
	}
}

// --- the view

func (a *agent) nodeJoined(now time.Time, list memberlist.Node) {
	_, incarnation, err := splitName(list.Name)
	if err != nil || a.nodes[claims.Node(incarnation)] != nil {
		return
	}
	n := &node{
		id: claims.Node(incarnation), name: list.Name, addr: list.Address(), list: list,
		observer: len(list.Meta) == 1 && list.Meta[0] == observerMeta,
		out:      make(chan outgoing, maxTold+1), // and one claims message
	}
	a.nodes[n.id] = n
	a.senders.Go(func() { a.send(n.list, n.id, n.out) })
	a.machine.NodeUp(now, n.id, !n.observer)
	a.log.Info("node joined", "peer", n.name, "addr", n.addr)
	a.viewChanged()
}

// nodeLeft: memberlist has given a node up, or has heard that it left.
func (a *agent) nodeLeft(now time.Time, name string) {
	n := a.find(name)
	if n == nil {
		return
	}
	delete(a.nodes, n.id)
	close(n.out)
	a.machine.NodeDown(now, n.id)
	if !n.leaving {
		a.c.joiner.remember(n.addr)
	}
	if !n.departed {
		a.log.Warn("node does not answer and was given up", "peer", n.name)
	}
	a.viewChanged()
}

// nodeSaidGoodbye takes a node out of the view that will be gone in a moment.
func (a *agent) nodeSaidGoodbye(now time.Time, name string) {
	n := a.find(name)
	if n == nil || n.leaving {
		return
	}
	a.log.Info("node left", "peer", n.name)
	n.leaving, n.departed = true, true
	a.machine.NodeDown(now, n.id)
	a.viewChanged()
}

// processGone is the tripwire's word that the process of a node has ended.
func (a *agent) processGone(name string, proof error) {
	a.do(func(now time.Time) {
		n := a.find(name)
		if n == nil || n.departed {
			return
		}
		a.log.Info("the process of a node is gone", "peer", name, "proof", proof)
		for _, other := range a.nodes {
			if other != n {
				a.c.list.SendBestEffort(&other.list, append([]byte{kindDeparted}, name...)) // the fast way, and the sure one
				a.tell(other, kindDeparted, name)
			}
		}
		a.nodeDeparted(now, name)
	})
}

// nodeDeparted takes a node out of the view before memberlist does. A word from
// the node itself, asked for now, takes that back.
func (a *agent) nodeDeparted(now time.Time, name string) {
	n := a.find(name)
	if n == nil || n.departed {
		return
	}
	n.departed = true
	a.machine.NodeDown(now, n.id)
	a.question(n)
	a.viewChanged()
}

// nodeAnswered takes a departure back.
func (a *agent) nodeAnswered(now time.Time, name string) {
	n := a.find(name)
	if n == nil || !n.departed || n.leaving {
		return
	}
	n.departed = false
	a.log.Warn("a node that was taken for gone is alive", "peer", name)
	a.machine.NodeUp(now, n.id, !n.observer)
	a.viewChanged()
}

func (a *agent) question(n *node) { a.tell(n, kindQuestion, a.c.name) }

func (a *agent) answer(name string) {
	if n := a.find(name); n != nil {
		a.tell(n, kindAnswer, a.c.name)
	}
}

func (a *agent) find(name string) *node {
	_, incarnation, err := splitName(name)
	if n := a.nodes[claims.Node(incarnation)]; err == nil && n != nil && n.name == name {
		return n
	}
	return nil
}

// viewChanged publishes the members and sets the tripwires.
func (a *agent) viewChanged() {
	members := []Member{a.selfMember()}
	var names []string
	for _, n := range a.nodes {
		if !n.departed {
			members = append(members, Member{Name: n.name, Addr: n.addr, Observer: n.observer})
			names = append(names, n.name)
		}
	}
	a.c.traps.watch(a.nextInRing(names))
	a.mu.Lock()
	defer a.mu.Unlock()
	a.members = members
	a.announce()
}

// announce wakes those that wait for membership to change; a.mu is held.
func (a *agent) announce() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// nextInRing returns the addresses of the few nodes that come after this one in
// the order of the names, going round.
func (a *agent) nextInRing(names []string) map[string]string {
	slices.Sort(names)
	after, _ := slices.BinarySearch(names, a.c.name)
	targets := map[string]string{}
	for i := range min(tripwireReach, len(names)) {
		n := a.find(names[(after+i)%len(names)])
		targets[n.name] = n.addr
	}
	return targets
}

func (a *agent) selfMember() Member {
	return Member{Name: a.c.name, Addr: a.c.addr, Observer: a.c.cfg.Observer, Self: true}
}

// membership returns the members, and a channel that is closed when they
// change.
func (a *agent) membership() ([]Member, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.members, a.changed
}

// hasMet says whether this node has exchanged clocks with another one.
func (a *agent) hasMet() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.met
}
