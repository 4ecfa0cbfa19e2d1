package highlandertest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"highlander"
	core "highlander/internal/lease"
)

// memServer is a server in memory, with faults, for a small engine that keeps its
// leases there: what the checks of group Server are tried on, in virtual time.
type memServer struct {
	broken breakage
	opened int // nodes so far

	mu      sync.Mutex
	rows    map[string]*row
	records map[string]record
	fault   fault
	thawed  chan struct{} // closed when the server does not hang any more
	links   map[string]*link
}

// row is a claim to an id. The server renews it, and knows when it has run out.
type row struct {
	holder  highlander.Holder
	claim   string // unique per Acquire, and per answer that did not come
	expires time.Time
}

// record is what is left of the newest claim to an id when its row is gone.
type record struct {
	claim    string
	token    uint64
	released bool // else its child may be running
}

type fault int

const (
	noFault fault = iota
	serverDown
	serverDenies
)

// link is the network between a node and the server.
type link struct {
	cutSend, cutReceive bool
	delay               time.Duration // of what the node is sent
}

// breakage is in which way the engine is wrong.
type breakage int

const (
	sound breakage = iota
	handsOverWhenHarmed
	takesForeignRows
	countsFromTheReply
	givesUpWaiting
	forgetsTokens
	tellsLate
	neverTells
	losesOnError
	losesSoon
	neverLoses
	believesInSending
	takesAgain
	losesOtherwise
)

const (
	memServerTTL     = 2 * time.Second
	memServerTimeout = memServerTTL / 4
	memServerPoll    = memServerTTL / 400
)

var (
	errDown   = errors.New("connection refused")
	errDenied = errors.New("permission denied")
	memTerms  = core.Terms{TTL: memServerTTL, Every: memServerTTL / 4}
)

// served makes onServer one of the broken engines.
func served(broken breakage) func(Fixture) Fixture {
	return func(Fixture) Fixture { return onServer(broken)(nil) }
}

// onServer is the fixture of an engine on a server, which is broken in one way.
func onServer(broken breakage) func(*testing.T) Fixture {
	return func(*testing.T) Fixture {
		s := &memServer{broken: broken, rows: map[string]*row{}, records: map[string]record{}, links: map[string]*link{}, thawed: make(chan struct{})}
		close(s.thawed)
		return Fixture{
			Node:  func(_ *testing.T, name string) highlander.Cluster { return s.open(name) },
			Crash: func(_ *testing.T, node highlander.Cluster) { node.(*memNode).crash() },
			TTL:   memServerTTL,
			Cut: func(_ *testing.T, node highlander.Cluster) (mend func()) {
				return s.cut(node, func(l *link) { l.cutSend, l.cutReceive = true, true })
			},
			Server: &Server{
				Restart:              func(*testing.T) { s.restart() },
				LeasesOutliveRestart: true,
				Hang:                 func(*testing.T) (resume func()) { return s.hang() },
				CutSend: func(_ *testing.T, node highlander.Cluster) (mend func()) {
					return s.cut(node, func(l *link) { l.cutSend = true })
				},
				CutReceive: func(_ *testing.T, node highlander.Cluster) (mend func()) {
					return s.cut(node, func(l *link) { l.cutReceive = true })
				},
				Deny: func(*testing.T) (allow func()) {
					s.suffer(serverDenies)
					return func() { s.suffer(noFault) }
				},
				Harm: []Harm{
					{"deleted", func(_ *testing.T, _ highlander.Cluster, id string) { s.change(id, nil) }},
					{"overwritten", func(_ *testing.T, _ highlander.Cluster, id string) {
						s.change(id, &row{holder: highlander.Holder{ID: id, Node: "somebody"}, expires: time.Now().Add(memServerTTL)})
					}},
				},
			},
		}
	}
}

func (s *memServer) suffer(f fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// restart is short. Every claim begins its TTL anew.
func (s *memServer) restart() {
	s.suffer(serverDown)
	time.Sleep(memServerTTL * 3 / 10)
	s.suffer(noFault)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rows {
		r.expires = time.Now().Add(memServerTTL)
	}
}

func (s *memServer) hang() (resume func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	thawed := make(chan struct{})
	s.thawed = thawed
	return sync.OnceFunc(func() { close(thawed) })
}

func (s *memServer) cut(node highlander.Cluster, how func(*link)) (mend func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.links[node.Node()]
	how(l)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		l.cutSend, l.cutReceive = false, false
	}
}

func (s *memServer) change(id string, r *row) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.rows, id)
	if r != nil {
		s.rows[id] = r
	}
	if s.broken == forgetsTokens {
		s.records[id] = record{claim: s.records[id].claim}
	}
}

// answer is what a node is told about an id.
type answer struct {
	token uint64 // of the row of its claim, if there is one
	gone  bool   // the row of a claim that was not released
}

// take gives the id to a claim if it is free, or if the node says that whoever had
// it must have stopped.
func (s *memServer) take(h highlander.Holder, claim string, stopped bool) answer {
	now := time.Now()
	r, last := s.rows[h.ID], s.records[h.ID]
	switch {
	case r != nil && r.claim == claim:
	case r != nil && r.claim == "" && s.broken == takesForeignRows:
		fallthrough
	case r != nil && !now.Before(r.expires):
		r = nil
	case r != nil:
		return answer{}
	case last.claim != "" && !last.released && !stopped && s.broken != handsOverWhenHarmed:
		return answer{gone: true}
	}
	if r == nil {
		h.Token, h.Since = last.token+1, now
		r = &row{holder: h, claim: claim}
		s.rows[h.ID], s.records[h.ID] = r, record{claim: claim, token: h.Token}
	}
	r.expires = now.Add(memServerTTL)
	return answer{token: r.holder.Token}
}

// renew puts off the end of a claim, and reports whether it is there.
func (s *memServer) renew(id, claim string) bool {
	r := s.rows[id]
	if r == nil || r.claim != claim || !time.Now().Before(r.expires) {
		return false
	}
	r.expires = time.Now().Add(memServerTTL)
	return true
}

// release ends a claim. That of which the row is gone has stopped, too.
func (s *memServer) release(id, claim string) bool {
	if r := s.rows[id]; r != nil && r.claim == claim {
		delete(s.rows, id)
	}
	if last := s.records[id]; last.claim == claim {
		last.released = true
		s.records[id] = last
	}
	return true
}

// holders returns those of one id or, if it is empty, of all.
func (s *memServer) holders(id string) (all []highlander.Holder) {
	for _, r := range s.rows {
		if time.Now().Before(r.expires) && (id == "" || id == r.holder.ID) {
			all = append(all, r.holder)
		}
	}
	return all
}

// memNode is a node of the engine on memServer.
type memNode struct {
	server  *memServer
	name    string
	clock   func() time.Duration
	book    *core.Book
	turns   core.Turns
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	claims int                    // so far
	held   map[string]*core.Lease // by claim
}

// open opens a node. What a is sent takes its time.
func (s *memServer) open(name string) *memNode {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened++
	n := &memNode{server: s, name: fmt.Sprintf("%s#%d", name, s.opened), held: map[string]*core.Lease{}}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	start := time.Now()
	n.clock = func() time.Duration { return time.Since(start) }
	n.book = core.NewBook(n.clock, slog.New(slog.DiscardHandler))
	s.links[n.name] = &link{}
	if name == "a" {
		s.links[n.name].delay = memServerTTL / 16
	}
	n.running.Go(n.renewAll)
	return n
}

func (n *memNode) Node() string { return n.name }

// call has the server carry out a request. It may be lost on its way, and so may
// the answer; a server that hangs carries it out later, when the node has given up.
func call[T any](ctx context.Context, n *memNode, request func() T) (reply T, err error) {
	patience := memServerTimeout
	if n.server.broken == losesSoon {
		patience = memServerTTL * 7 / 100
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	type result struct {
		reply T
		err   error
	}
	answered := make(chan result, 1)
	s := n.server
	n.running.Go(func() {
		s.mu.Lock()
		thawed := s.thawed
		s.mu.Unlock()
		<-thawed
		s.mu.Lock()
		defer s.mu.Unlock()
		link := s.links[n.name]
		switch {
		case link.cutSend:
		case s.fault == serverDown:
			answered <- result{err: errDown}
		case s.fault == serverDenies:
			answered <- result{err: errDenied}
		default:
			r := result{reply: request()}
			if link.cutReceive {
				return
			}
			if link.delay == 0 {
				answered <- r
				return
			}
			time.AfterFunc(link.delay, func() { answered <- r })
		}
	})
	select {
	case r := <-answered:
		return r.reply, r.err
	case <-ctx.Done():
		return reply, ctx.Err()
	}
}

func (n *memNode) Acquire(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
	if err := memTerms.CheckAcquire(id, opts); err != nil {
		return nil, err
	}
	both, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(n.ctx, func() { cancel(highlander.ErrClosed) })()
	endTurn, err := n.turns.Take(both, id)
	if err != nil {
		return nil, err
	}
	l, err := n.compete(both, id, opts, endTurn)
	if err != nil {
		endTurn()
		return nil, err
	}
	return l, nil
}

// compete asks the server again and again.
func (n *memNode) compete(ctx context.Context, id string, opts highlander.AcquireOptions, endTurn func()) (highlander.Lease, error) {
	claim := n.newClaim()
	var goneSince time.Time // zero: it is not
	for {
		stopped := !goneSince.IsZero() && time.Since(goneSince) > memServerTTL
		sent := n.clock()
		a, err := n.take(ctx, highlander.Holder{ID: id, Node: n.name, Meta: opts.Meta}, claim, stopped)
		switch {
		case err != nil && ctx.Err() == nil && n.server.broken == givesUpWaiting:
			<-ctx.Done()
		case err != nil && n.server.broken != takesAgain: // it may have been taken, but nobody knows when
			claim = n.newClaim()
		case err != nil:
		case a.token != 0:
			return n.grant(id, claim, a.token, opts, sent, endTurn), nil
		case !a.gone:
			goneSince = time.Time{}
		case goneSince.IsZero():
			goneSince = time.Now()
		}
		select {
		case <-time.After(memServerPoll):
		case <-ctx.Done():
			_ = n.letGo(n.ctx, id, claim) // it may have it
			return nil, context.Cause(ctx)
		}
	}
}

func (n *memNode) take(ctx context.Context, h highlander.Holder, claim string, stopped bool) (answer, error) {
	return call(ctx, n, func() answer { return n.server.take(h, claim, stopped) })
}

func (n *memNode) newClaim() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.claims++
	return fmt.Sprint(n.name, " ", n.claims)
}

func (n *memNode) grant(id, claim string, token uint64, opts highlander.AcquireOptions, sent time.Duration, endTurn func()) *core.Lease {
	stopWithin := opts.StopWithin
	switch n.server.broken {
	case tellsLate:
		stopWithin = 0
	case neverTells:
		stopWithin = -time.Hour
	}
	l := n.book.Grant(core.Grant{ID: id, Token: token, StopWithin: stopWithin, Until: n.until(sent), End: endTurn,
		Release: func(ctx context.Context) error { return n.letGo(ctx, id, claim) }})
	n.mu.Lock()
	defer n.mu.Unlock()
	n.held[claim] = l
	return l
}

func (n *memNode) until(sent time.Duration) time.Duration {
	if n.server.broken == countsFromTheReply {
		sent = n.clock()
	}
	return memTerms.Until(sent)
}

func (n *memNode) letGo(ctx context.Context, id, claim string) error {
	n.mu.Lock()
	delete(n.held, claim)
	n.mu.Unlock()
	_, err := call(ctx, n, func() bool { return n.server.release(id, claim) })
	return err
}

// renewAll renews what is held, again and again.
func (n *memNode) renewAll() {
	for {
		select {
		case <-time.After(memTerms.Every):
		case <-n.ctx.Done():
			return
		}
		n.mu.Lock()
		for claim, l := range n.held {
			if l.Err() == nil {
				n.running.Go(func() { n.renew(l, claim) })
			}
		}
		n.mu.Unlock()
	}
}

func (n *memNode) renew(l *core.Lease, claim string) {
	sent := n.clock()
	if n.server.broken == believesInSending {
		l.Renew(n.until(sent))
	}
	ok, err := call(n.ctx, n, func() bool { return n.server.renew(l.ID(), claim) })
	switch {
	case err != nil && n.server.broken == losesOtherwise:
		l.Lose(errDown)
	case err != nil && (n.server.broken == losesOnError || n.server.broken == losesSoon), err == nil && !ok:
		l.Lose(highlander.ErrLeaseLost)
	case err == nil || n.server.broken == neverLoses:
		l.Renew(n.until(sent))
	}
}

func (n *memNode) Lookup(ctx context.Context, id string) (highlander.Holder, error) {
	all, err := call(ctx, n, func() []highlander.Holder { return n.server.holders(id) })
	switch {
	case err != nil:
		return highlander.Holder{}, err
	case len(all) == 0:
		return highlander.Holder{}, highlander.ErrNotHeld
	}
	return all[0], nil
}

func (n *memNode) Holders(ctx context.Context) ([]highlander.Holder, error) {
	return call(ctx, n, func() []highlander.Holder { return n.server.holders("") })
}

// Close releases everything, once, and leaves.
func (n *memNode) Close() error {
	n.mu.Lock()
	held := n.held
	n.held = map[string]*core.Lease{}
	n.mu.Unlock()
	for claim, l := range held {
		_ = n.letGo(n.ctx, l.ID(), claim)
	}
	n.crash()
	return nil
}

func (n *memNode) crash() {
	n.cancel()
	n.book.Close()
	n.running.Wait()
}
