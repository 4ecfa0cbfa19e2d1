package gossip

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"highlander"
	"highlander/internal/claims"
)

// lease is one Acquire, from the claim to its end. The agent's goroutine alone
// moves it from one phase to the next.
type lease struct {
	agent      *agent
	id, meta   string
	stopWithin time.Duration

	claim   claims.Claim
	phase   leasePhase
	token   atomic.Uint64
	ends    atomic.Int64 // when it runs out, by agent.up, as was known last; zero: it does not
	granted chan struct{}
	done    chan struct{}

	mu    sync.Mutex
	err   error    // why the lease has ended; nil before
	after []*after // to be run then
}

// after is a function that AfterFunc was given. There is one per lease, as a
// rule; a context would take several times the memory.
type after struct{ run func() }

type leasePhase int

const (
	leaseWaiting leasePhase = iota
	leaseHeld
	leaseEnding // it is about to run out: Done is closed, but the claim is there until Release, or until it has
	leaseEnded
)

var _ highlander.Lease = (*lease)(nil)

func (l *lease) Token() uint64         { return l.token.Load() }
func (l *lease) Done() <-chan struct{} { return l.done }

// Expires asks the clock by which the lease runs out at each call, so that it is
// right even after the machine was suspended.
func (l *lease) Expires() time.Time {
	l.agent.do(func(claims.Instant) {
		if l.phase == leaseHeld {
			l.agent.tellBy(l)
		}
	})
	ends := time.Duration(l.ends.Load())
	if ends == 0 {
		return time.Time{}
	}
	now := time.Now() // before the other clock: what comes in between makes it earlier
	return now.Add(ends - l.agent.up())
}

func (l *lease) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// AfterFunc is what context.AfterFunc is, for the end of the lease. It spares a
// Singleton the goroutine that would wait for Done.
func (l *lease) AfterFunc(f func()) (stop func() bool) {
	a := &after{run: f}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		go a.run()
		return func() bool { return false }
	}
	l.after = append(l.after, a)
	return func() bool { return l.forget(a) }
}

// forget takes a back, and returns whether it had not been run.
func (l *lease) forget(a *after) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.after, a)
	if i < 0 {
		return false
	}
	l.after = slices.Delete(l.after, i, i+1)
	return true
}

// Release returns when the claim is gone from this node and the others are
// being told.
func (l *lease) Release(context.Context) error {
	l.agent.do(func(now claims.Instant) { l.agent.release(now, l) }) // after Close there is nothing to release
	return nil
}

// grant hands the lease out or raises its token.
func (l *lease) grant(token uint64) {
	l.token.Store(token)
	if l.phase == leaseWaiting {
		l.phase = leaseHeld
		close(l.granted)
	}
}

// lose tells the holder that the lease is about to run out. The claim stays:
// while the child stops, nobody else gets the lease before it has run out.
func (l *lease) lose() {
	l.phase = leaseEnding
	l.finish(highlander.ErrLeaseLost)
}

func (l *lease) end(err error) {
	if l.phase != leaseEnding && l.phase != leaseEnded {
		l.finish(err)
	}
	l.phase = leaseEnded
}

// finish closes Done.
func (l *lease) finish(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
	close(l.done)
	for _, a := range l.after {
		go a.run()
	}
	l.after = nil
}
