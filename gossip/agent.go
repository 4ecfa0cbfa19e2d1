package gossip

import (
	"log/slog"
	"sync"
	"time"

	"highlander"
	"highlander/internal/boottime"
	"highlander/internal/claims"
	"highlander/internal/nodename"
)

const (
	tickEvery    = time.Second // the tick of the claims machine
	maxOpsInTurn = 4096        // inputs taken before the outputs are carried out
	maxBatch     = 2000        // States in one message
	maxPosted    = 1024        // inputs from packets that wait for the agent
)

// agent owns the claims machine and everything that goes with it. Its goroutine
// runs one input after the other (do, post), then carries out what the machine
// says.
type agent struct {
	c       *Cluster
	log     *slog.Logger
	self    claims.Node
	up      func() time.Duration // boottime.Now, but for tests
	machine *claims.Machine
	expiry  expiry
	quorum  quorumLog
	leases  map[claims.Claim]*lease
	nodes   map[claims.Node]*node // known to memberlist, this one not
	mortals map[claims.Node]*mortal
	left    map[claims.Node]*leftNode // that were, a short while ago; in quorum mode
	outbox  []claims.Node             // scratch of flush
	quiet   []chan struct{}           // closed when all that there was to say is said
	packet  []byte                    // scratch of dispatch
	words   uint64                    // number of the last word
	heard   map[claims.Node]*replayWindow
	confirm *time.Timer // runs while confirming

	confirming bool // packets wait to be acknowledged
	closing    bool // no more claims

	inputs  chan func(now claims.Instant)
	stopped chan struct{} // closed when the goroutine has ended
	quit    chan struct{}
	senders sync.WaitGroup

	// What comes from memberlist's callbacks, which must not block.
	mu      sync.Mutex
	posted  []func(now claims.Instant)
	wake    chan struct{}
	hlc     claims.HLC // for the exchange at join
	met     bool       // a clock was exchanged
	members []Member
	changed chan struct{} // closed when members or the keys change
}

// instant reads both clocks.
func (a *agent) instant() claims.Instant { return claims.Instant{Wall: time.Now(), Up: a.up()} }

func newAgent(c *Cluster, cfg claims.Config) *agent {
	a := &agent{
		c: c, log: c.log, self: cfg.Self, up: boottime.Now,
		leases: map[claims.Claim]*lease{}, nodes: map[claims.Node]*node{}, left: map[claims.Node]*leftNode{}, mortals: map[claims.Node]*mortal{},
		heard:  map[claims.Node]*replayWindow{},
		inputs: make(chan func(claims.Instant)), stopped: make(chan struct{}), quit: make(chan struct{}),
		wake: make(chan struct{}, 1), changed: make(chan struct{}),
		confirm: stoppedTimer(), expiry: expiry{alarm: stoppedTimer()},
	}
	if c.cfg.up != nil {
		a.up = c.cfg.up
	}
	a.machine = claims.New(a.instant(), cfg)
	return a
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

func (a *agent) start() {
	a.viewChanged()
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
	defer a.expiry.alarm.Stop()
	_, keysChanged := a.c.keys.current()
	for {
		select {
		case input := <-a.inputs:
			a.take(input)
			a.runMore()
		case <-a.wake:
			a.runPosted()
		case <-tick.C:
			a.take(a.tick)
		case <-a.confirm.C:
			a.repeatLost()
		case <-a.expiry.alarm.C:
			a.take(func(claims.Instant) {}) // the time it is may be news enough
		case <-keysChanged:
			_, keysChanged = a.c.keys.current()
			a.mu.Lock()
			a.announce() // the certificate is another
			a.mu.Unlock()
		case <-a.quit:
			a.end()
			return
		}
		a.flush(a.instant())
	}
}

// take runs an input. The time is looked at before: what it brings may have come
// after a lease has run out, though both were waiting here, as in a process that
// was frozen.
func (a *agent) take(input func(now claims.Instant)) {
	now := a.instant()
	a.lookAtTheTime(now)
	input(now)
}

// runMore takes what else is waiting, so that it goes out in one message.
func (a *agent) runMore() {
	for range maxOpsInTurn {
		select {
		case input := <-a.inputs:
			a.take(input)
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
		a.take(input)
	}
}

// do runs an input on the agent's goroutine and waits for it; false if the
// agent has stopped.
func (a *agent) do(input func(now claims.Instant)) bool {
	ran := make(chan struct{})
	select {
	case a.inputs <- func(now claims.Instant) { input(now); close(ran) }:
		<-ran
		return true
	case <-a.stopped:
		return false
	}
}

// post has an input run soon, and does not block.
func (a *agent) post(input func(now claims.Instant)) {
	a.mu.Lock()
	a.posted = append(a.posted, input)
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *agent) tick(now claims.Instant) {
	a.machine.Tick(now)
	if a.inQuorumMode() {
		a.tickQuorum()
		a.tickLeft()
	}
	for _, n := range a.nodes {
		n.stream.tick()
		if n.new > 0 {
			a.tellGone(n)
		}
		switch n.phase {
		case nodeDeparted:
			a.question(n)
		case nodeDoubted:
			a.tickDoubt(now, n)
		}
	}
}

// end closes what is left when the agent stops.
func (a *agent) end() {
	for _, l := range a.leases {
		l.end(highlander.ErrClosed)
	}
	for _, n := range a.nodes {
		close(n.stream.out)
	}
}

// flush carries out what the machine says.
func (a *agent) flush(now claims.Instant) {
	a.carryOutEvents(now)
	a.outbox = a.machine.Outbox(a.outbox[:0])
	for _, id := range a.outbox {
		if a.inQuorumMode() {
			a.sendBeats(now, id)
		}
		if n := a.nodes[id]; n != nil && n.stream.phase == streamIdle {
			a.dispatch(n, a.machine.Message(now, id, maxBatch))
		}
	}
	a.setAlarm()
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

func (a *agent) carryOutEvents(now claims.Instant) {
	for events := a.machine.Events(); len(events) > 0; events = a.machine.Events() {
		for _, e := range events {
			a.carryOut(now, e)
		}
	}
}

func (a *agent) carryOut(now claims.Instant, e claims.Event) {
	l := a.leases[e.Claim]
	if l == nil {
		return
	}
	switch e.Kind {
	case claims.Granted:
		if a.inQuorumMode() && a.machine.Expires(e.Claim) == 0 {
			return // it has run out in the same turn, as the next event says
		}
		if l.phase == leaseHeld {
			a.log.Info("raised the token after a netsplit", "id", l.id, "token", e.Token)
		}
		l.grant(e.Token)
		a.watchExpiry(l)
	case claims.Expired:
		delete(a.leases, e.Claim)
		if l.phase == leaseWaiting { // nobody knew of it: queue up again
			a.claim(now, l)
			return
		}
		held := l.phase == leaseHeld
		l.end(highlander.ErrLeaseLost)
		if held { // as after a freeze; else it was told before
			a.log.Warn("the lease has run out", "id", l.id, "token", l.Token())
		}
	case claims.Conflict:
		delete(a.leases, e.Claim)
		if l.phase == leaseWaiting { // nobody knew of it: queue up again
			a.claim(now, l)
			return
		}
		l.end(highlander.ErrConflict)
		a.log.Info("lost the lease to another holder", "id", l.id, "token", l.Token())
	}
}

func (a *agent) claim(now claims.Instant, l *lease) {
	if a.closing {
		l.end(highlander.ErrClosed)
		return
	}
	l.claim = a.machine.Acquire(now, l.id, l.meta, l.stopWithin+a.c.rules().early())
	a.leases[l.claim] = l
}

func (a *agent) release(now claims.Instant, l *lease) {
	if l.phase == leaseEnded {
		return
	}
	delete(a.leases, l.claim)
	a.machine.Release(now, l.id, l.claim)
	l.end(highlander.ErrClosed)
}

// endLeases releases everything, says goodbye, and gives these messages some
// time to go out.
func (a *agent) endLeases() {
	said := make(chan struct{})
	running := a.do(func(now claims.Instant) {
		a.closing = true
		for _, l := range a.leases {
			a.release(now, l)
		}
		for _, n := range a.nodes {
			a.tell(n, word{kind: wordGoodbye})
		}
		a.quiet = append(a.quiet, said)
	})
	if running {
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
	return highlander.Holder{ID: h.ID, Node: a.nameOf(h.Claim.Node), Meta: h.Meta, Token: h.Token, Since: h.Since}
}

// nameOf returns the name of a node, which may have left: in quorum mode it holds
// what it held for a while.
func (a *agent) nameOf(id claims.Node) string {
	if id == a.self {
		return a.c.name
	}
	if n := a.nodes[id]; n != nil {
		return n.name
	}
	if m := a.mortals[id]; m != nil {
		return m.name
	}
	return nodename.Join("unknown", uint64(id))
}
