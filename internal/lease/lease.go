package lease

import (
	"context"
	"slices"
	"time"

	"highlander"
)

// Lease is a lease of the node that has the book. It is held until it is
// released, lost or about to run out, which closes Done, and over when Release
// has returned or it has run out.
type Lease struct {
	book  *Book
	grant Grant
	done  chan struct{}

	// The lock of the book guards these.
	until   time.Duration // stands still once Done is closed
	err     error         // why Done is closed; nil before
	after   []*after      // to be run then
	release *release      // nil before Release
}

var _ highlander.Lease = (*Lease)(nil)

// after is a function that AfterFunc was given. There is one per lease, as a
// rule; a context would take several times the memory.
type after struct{ run func() }

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
func (l *Lease) Done() <-chan struct{} { return l.done }

// Err implements highlander.Lease.
func (l *Lease) Err() error {
	l.book.mu.Lock()
	defer l.book.mu.Unlock()
	return l.err
}

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

// AfterFunc is what context.AfterFunc is, for the end of the lease. It spares a
// Singleton the goroutine that would wait for Done.
func (l *Lease) AfterFunc(f func()) (stop func() bool) {
	a := &after{run: f}
	l.book.mu.Lock()
	defer l.book.mu.Unlock()
	if !l.held() {
		go a.run()
		return func() bool { return false }
	}
	l.after = append(l.after, a)
	return func() bool { return l.forget(a) }
}

// forget takes a back, and returns whether it had not been run.
func (l *Lease) forget(a *after) bool {
	l.book.mu.Lock()
	defer l.book.mu.Unlock()
	i := slices.Index(l.after, a)
	if i < 0 {
		return false
	}
	l.after = slices.Delete(l.after, i, i+1)
	return true
}

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
	l.finish(err)
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
	l.finish(highlander.ErrClosed)
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

func (l *Lease) held() bool { return l.err == nil }

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

// finish closes Done, unless it is closed.
func (l *Lease) finish(err error) {
	if !l.held() {
		return
	}
	l.err = err
	close(l.done)
	for _, a := range l.after {
		go a.run()
	}
	l.after = nil
}
