package lease

import (
	"context"
	"log/slog"
	"maps"
	"math"
	"sync"
	"time"

	"highlander"
)

// lookEvery is how often the clock is looked at while there are leases: Go has
// no timer for the clock that goes on while the machine is suspended.
const lookEvery = Margin / 2

// Book has the leases of one node. All methods may be called concurrently.
type Book struct {
	clock func() time.Duration
	log   *slog.Logger

	mu       sync.Mutex
	leases   map[*Lease]struct{} // that are not over
	next     time.Duration       // when the first of them is due
	watching bool                // the goroutine is there
	closed   bool
	late     []late // leases that were not renewed in time, to be logged
	logging  bool   // by a goroutine

	wake    chan struct{}
	running sync.WaitGroup // the goroutines
}

// late is a lease whose holder was told because it was not renewed in time.
type late struct {
	id    string
	token uint64
	left  time.Duration
}

// NewBook returns a book without leases. The clock is boottime.Now. It has a
// goroutine only while there are leases, and one while it logs.
func NewBook(clock func() time.Duration, log *slog.Logger) *Book {
	return &Book{clock: clock, log: log, leases: map[*Lease]struct{}{}, wake: make(chan struct{}, 1)}
}

// Grant is a lease that was won at the server.
type Grant struct {
	ID         string
	Token      uint64
	StopWithin time.Duration // as in highlander.AcquireOptions
	Until      time.Duration // when it runs out, by the clock of the book

	// Release gives the claim up at the server. The first call of
	// Lease.Release calls it, with its context, also when the lease was lost or
	// has run out before: the child has stopped then, which others may be
	// waiting to hear. It compares the token: the id may have another holder by
	// then. It is not called after Book.Close.
	Release func(context.Context) error

	// End is called once, when the lease is over: Release has returned, or the
	// lease has run out, or the book is closed, whichever is first. That is when
	// the turn of the call ends (Turns). It must not block. It may be nil.
	// Where Grant returns a lease that is over, it has been called.
	End func()
}

// Grant writes a lease into the book. If it is about to run out already, or the
// book is closed, it comes with Done closed.
func (b *Book) Grant(g Grant) *Lease {
	l := &Lease{book: b, grant: g, until: g.Until, ending: NewEnding()}
	var over []*Lease
	b.mu.Lock()
	if b.closed {
		l.ending.Finish(highlander.ErrClosed)
		over = append(over, l)
	} else {
		b.leases[l] = struct{}{}
		over = b.bringUpToDate(l, b.clock(), over)
		b.watch(l)
	}
	b.mu.Unlock()
	endAll(over)
	return l
}

// RenewAll is Renew for every lease of the book.
func (b *Book) RenewAll(until time.Duration) {
	b.all(func(l *Lease, now time.Duration) { l.renew(until, now) })
}

// LoseAll is Lose for every lease of the book.
func (b *Book) LoseAll(err error) {
	b.all(func(l *Lease, now time.Duration) { l.ending.Finish(err) })
}

func (b *Book) all(f func(*Lease, time.Duration)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.clock()
	for l := range b.leases {
		f(l, now)
	}
}

// Close ends every lease with highlander.ErrClosed and waits for the goroutines of
// the book. It does not release them at the server: that is for the engine to do,
// all in one. It is idempotent.
func (b *Book) Close() {
	b.mu.Lock()
	b.closed = true
	var over []*Lease
	for l := range maps.Clone(b.leases) {
		l.ending.Finish(highlander.ErrClosed)
		over = b.strike(l, over)
	}
	b.mu.Unlock()
	endAll(over)
	b.running.Wait()
}

// watch sees to it that the goroutine is there, and awake when l is due. The
// caller has the lock.
func (b *Book) watch(l *Lease) {
	if len(b.leases) == 0 {
		return
	}
	switch due := l.due(); {
	case !b.watching:
		b.watching, b.next = true, due
		b.running.Go(b.look)
	case due < b.next:
		b.next = due
		b.nudge()
	}
}

func (b *Book) nudge() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// look is the goroutine: it looks at the clock until there are no leases.
func (b *Book) look() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-b.wake:
		}
		wait, more := b.lookOnce()
		if !more {
			return
		}
		timer.Reset(wait)
	}
}

// lookOnce does what is due and returns when to look again, if there is anything
// to look at.
func (b *Book) lookOnce() (wait time.Duration, more bool) {
	var over []*Lease
	b.mu.Lock()
	now := b.clock()
	if now >= b.next {
		over = b.advance(now)
	}
	b.watching = len(b.leases) > 0
	wait, more = min(b.next-now, lookEvery), b.watching
	b.mu.Unlock()
	endAll(over)
	return wait, more
}

// advance brings all leases up to date and returns those that are over now. The
// caller has the lock.
func (b *Book) advance(now time.Duration) (over []*Lease) {
	b.next = math.MaxInt64
	for l := range maps.Clone(b.leases) {
		over = b.bringUpToDate(l, now, over)
		if _, in := b.leases[l]; in {
			b.next = min(b.next, l.due())
		}
	}
	return over
}

// bringUpToDate tells the holder of l if it is about to run out, and strikes it
// out and adds it to over if it has. The caller has the lock.
func (b *Book) bringUpToDate(l *Lease, now time.Duration, over []*Lease) []*Lease {
	if now < l.due() {
		return over
	}
	if l.held() {
		l.ending.Finish(highlander.ErrLeaseLost)
		b.tell(late{l.grant.ID, l.grant.Token, l.until - now})
	}
	if now < l.until {
		return over
	}
	return b.strike(l, over)
}

// tell has it logged that a lease was late. That is for another goroutine: a log
// that blocks must not keep other holders from being told. The caller has the lock.
func (b *Book) tell(l late) {
	b.late = append(b.late, l)
	if !b.logging {
		b.logging = true
		b.running.Go(b.logAll)
	}
}

// logAll logs what there is to log, one line for all that were late at once.
func (b *Book) logAll() {
	for {
		b.mu.Lock()
		all := b.late
		b.late, b.logging = nil, len(all) > 0
		b.mu.Unlock()
		if len(all) == 0 {
			return
		}
		first := all[0]
		attrs := []any{"id", first.id, "token", first.token, "left", first.left.Round(10 * time.Millisecond)}
		if len(all) > 1 {
			attrs = append(attrs, "and_others", len(all)-1)
		}
		b.log.Warn("the lease was not renewed in time; stopping", attrs...)
	}
}

// strike takes l out of the book and adds it to over, if it was in. The caller
// has the lock.
func (b *Book) strike(l *Lease, over []*Lease) []*Lease {
	if _, in := b.leases[l]; !in {
		return over
	}
	delete(b.leases, l)
	if len(b.leases) == 0 {
		b.nudge() // the goroutine, to end
	}
	return append(over, l)
}

// endAll is called without the lock.
func endAll(over []*Lease) {
	for _, l := range over {
		if l.grant.End != nil {
			l.grant.End()
		}
	}
}
