package gossip

import (
	"context"
	"sync/atomic"
	"time"

	"highlander"
	"highlander/internal/claims"
	leases "highlander/internal/lease"
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
	ending  *leases.Ending
}

type leasePhase int

const (
	leaseWaiting leasePhase = iota
	leaseHeld
	leaseEnding // it is about to run out: Done is closed, but the claim is there until Release, or until it has
	leaseEnded
)

var _ highlander.Lease = (*lease)(nil)

func (l *lease) Token() uint64         { return l.token.Load() }
func (l *lease) Done() <-chan struct{} { return l.ending.Done() }

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

func (l *lease) Err() error { return l.ending.Err() }

func (l *lease) AfterFunc(f func()) (stop func() bool) { return l.ending.AfterFunc(f) }

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
	l.ending.Finish(highlander.ErrLeaseLost)
}

func (l *lease) end(err error) {
	if l.phase != leaseEnding && l.phase != leaseEnded {
		l.ending.Finish(err)
	}
	l.phase = leaseEnded
}
