package lease

import (
	"context"
	"time"

	"highlander"
)

// Lease is a lease of the node that has the book. It is held until it is
// released, lost or about to run out, which closes Done, and over when Release
// has returned or it has run out.
type Lease struct {
	book   *Book
	grant  Grant
	ending *Ending // changed with the lock of the book only

	// The lock of the book guards these.
	until   time.Duration // stands still once Done is closed
	release *release      // nil before Release
}

var _ highlander.Lease = (*Lease)(nil)

// release is the one call of Grant.Release.
type release struct {
	returned chan struct{} // closed when it has, with ...
	err      error
}

// ID returns the id that the lease is of.
func (l *Lease) ID() string { return l.grant.ID }

// Token implements highlander.Lease.
func (l *Lease) Token() uint64 { return l.grant.Token }

// Done implements highlander.Lease.
func (l *Lease) Done() <-chan struct{} { return l.ending.Done() }

// Err implements highlander.Lease.
func (l *Lease) Err() error { return l.ending.Err() }

// Expires implements highlander.Lease. It asks the clock by which the lease runs
// out at each call, so that it is right even after the machine was suspended.
func (l *Lease) Expires() time.Time {
	until := l.Until()
	now := time.Now() // before the other clock: what comes in between makes it earlier
	return now.Add(until - l.book.clock())
}

// Until is Expires by the clock of the book.
func (l *Lease) Until() time.Duration {
	l.book.mu.Lock()
	defer l.book.mu.Unlock()
	return l.until
}

// AfterFunc is what context.AfterFunc is, for the end of the lease.
func (l *Lease) AfterFunc(f func()) (stop func() bool) { return l.ending.AfterFunc(f) }

// Renew says that a renewal has succeeded: the lease runs out at until. It does
// not make the end earlier, and does not revive a lease whose Done is closed or
// should be.
func (l *Lease) Renew(until time.Duration) {
	l.book.mu.Lock()
	defer l.book.mu.Unlock()
	l.renew(until, l.book.clock())
}

// Lose says that the lease was harmed: the holder is told at once, with
// highlander.ErrLeaseLost or, if there is another holder, highlander.ErrConflict.
// The lease is not over: Release, or its end, is still to come. It does nothing
// if Done is closed.
func (l *Lease) Lose(err error) {
	l.book.mu.Lock()
	defer l.book.mu.Unlock()
	l.ending.Finish(err)
}

// Release implements highlander.Lease. The first call carries it out, with its
// context; the others wait for that, and return the same.
func (l *Lease) Release(ctx context.Context) error {
	r, first := l.startRelease()
	if first {
		defer l.endRelease(r)
		r.err = l.grant.Release(ctx)
		return r.err
	}
	select {
	case <-r.returned:
		return r.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// startRelease closes Done and returns the call of Grant.Release, and whether the
// caller is the one to make it. After Book.Close there is none to be made.
func (l *Lease) startRelease() (r *release, first bool) {
	l.book.mu.Lock()
	defer l.book.mu.Unlock()
	if l.release != nil {
		return l.release, false
	}
	l.release = &release{returned: make(chan struct{})}
	if l.book.closed {
		close(l.release.returned)
		return l.release, false
	}
	l.ending.Finish(highlander.ErrClosed)
	return l.release, true
}

func (l *Lease) endRelease(r *release) {
	l.book.mu.Lock()
	over := l.book.strike(l, nil)
	l.book.mu.Unlock()
	endAll(over)
	close(r.returned)
}

// The caller of the following has the lock of the book.

func (l *Lease) held() bool { return l.ending.Err() == nil }

// due is when something happens to the lease: the holder is told, or it is over.
func (l *Lease) due() time.Duration {
	if l.held() {
		return l.until - l.grant.StopWithin - Margin
	}
	return l.until
}

func (l *Lease) renew(until, now time.Duration) {
	if l.held() && now < l.due() { // else the goroutine is late, and about to tell
		l.until = max(l.until, until)
	}
}
