package postgres

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"highlander"
	"highlander/internal/lease"
	"highlander/internal/retry"
)

// node is what competes for ids. One goroutine owns all of it but the inbox.
type node struct {
	c     *config
	clock func() time.Duration
	book  *lease.Book
	seats atomic.Int64

	inbox inbox
	stop  context.CancelCauseFunc
	ended chan struct{} // closed when the goroutine has returned
	crash atomic.Bool   // for tests: end as if killed

	claims  map[int64]*claim   // that wait, by seat
	holds   map[string]*hold   // by id
	known   map[string]*memory // of ids that are waited for or held
	leaving []*claim           // that were given up, and are in the queue
	calls   map[string]bool    // ids that we are called to take
	more    bool               // there are more than were dealt with at once
	current *session           // that is served
	old     []*session         // sessions that have ended, and are not put away

	until    time.Duration // when leases run out, as far as they are renewed
	nextBeat time.Duration
	pause    time.Duration // no work before that
	trusted  time.Duration // when the server may be believed that a lease is over
	peers    map[int64]*peer
	gone     []gone // sessions that have ended, as the ring says
	look     bool   // at the peers, at once

	trouble   trouble
	rowLocked bool // somebody had locked a row of leases for too long: it may be so still

	questions []question
	asking    chan struct{} // has an element for each of them, those in the inbox included
}

func newNode(c *config, clock func() time.Duration) *node {
	return &node{
		c: c, clock: clock, book: lease.NewBook(clock, c.log),
		inbox: inbox{wake: make(chan struct{}, 1)}, ended: make(chan struct{}),
		claims: map[int64]*claim{}, holds: map[string]*hold{}, known: map[string]*memory{}, calls: map[string]bool{},
		asking: make(chan struct{}, mostQuestions),
	}
}

// claim puts a claim where the server will hear of it.
func (n *node) claim(cl *claim) {
	if cl.place.Load() == claimWaits {
		n.claims[cl.seat] = cl
	}
}

func (n *node) start() {
	ctx, stop := context.WithCancelCause(context.Background())
	n.stop = stop
	go n.run(ctx)
}

// close ends everything. It may be called again, and concurrently.
func (n *node) close() {
	n.stop(highlander.ErrClosed)
	<-n.ended
}

// run has one session after the other.
func (n *node) run(ctx context.Context) {
	defer n.end()
	var outage outage
	for ctx.Err() == nil {
		s, err := n.connect(ctx)
		if err == nil {
			outage.over(n.c.log)
			began := time.Now()
			s.lost = n.serve(ctx, s)
			outage.lasted(time.Since(began))
			n.leave(ctx, s)
			err = s.lost
		}
		if ctx.Err() != nil {
			return
		}
		pause := outage.next(n.c.log, err)
		if permanent := (permanentError{}); errors.As(err, &permanent) {
			n.failAll(permanent)
		}
		retry.Sleep(ctx, pause)
	}
}

// connect opens a session and puts away those before it.
func (n *node) connect(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*n.c.opTimeout())
	defer cancel()
	sent := n.clock()
	s, err := n.openSession(ctx)
	if err != nil {
		return nil, err
	}
	n.newServer()
	n.distrust(s)
	if err := n.succeed(ctx, s, sent); err != nil {
		n.leave(ctx, s)
		return nil, err
	}
	return s, nil
}

// leave ends a session whose leases, if there are any, are still to be dealt with
// by the next one.
func (n *node) leave(ctx context.Context, s *session) {
	if ctx.Err() != nil && context.Cause(ctx) == highlander.ErrClosed && !n.crash.Load() {
		n.sayGoodbye(s)
	}
	if n.crash.Load() {
		s.wires.close()
	}
	s.end()
	for _, h := range n.holds {
		h.locked = false
	}
	n.old = append(n.old, s)
}

// end is the end of the goroutine.
func (n *node) end() {
	n.inbox.mu.Lock()
	n.inbox.closed = true
	n.inbox.mu.Unlock()
	n.doAll()
	n.failAll(highlander.ErrClosed)
	n.book.Close()
	for _, s := range n.old {
		s.cut()
	}
	close(n.ended)
}

func (n *node) failAll(err error) {
	n.doAll()
	for seat, cl := range n.claims {
		cl.fail(err)
		delete(n.claims, seat)
	}
}
