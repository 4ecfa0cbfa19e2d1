package gossip

import (
	"context"
	"sync/atomic"
	"time"

	"highlander"
	"highlander/internal/claims"
)

// lease is one Acquire, from the claim to its end. The agent's goroutine alone
// moves it from one phase to the next.
type lease struct {
	agent    *agent
	id, meta string

	claim   claims.Claim
	phase   leasePhase
	token   atomic.Uint64
	granted chan struct{}
	ctx     context.Context // ends with the lease; its cause is the reason
	cancel  context.CancelCauseFunc
}

type leasePhase int

const (
	leaseWaiting leasePhase = iota
	leaseHeld
	leaseEnded
)

var _ highlander.Lease = (*lease)(nil)

func (l *lease) Token() uint64         { return l.token.Load() }
func (l *lease) Done() <-chan struct{} { return l.ctx.Done() }
func (l *lease) Expires() time.Time    { return time.Time{} }

func (l *lease) Err() error { return context.Cause(l.ctx) }

// AfterFunc is context.AfterFunc for the end of the lease. It spares a
// Singleton the goroutine that would wait for Done.
func (l *lease) AfterFunc(f func()) (stop func() bool) { return context.AfterFunc(l.ctx, f) }

// Release returns when the claim is gone from this node and the others are
// being told.
func (l *lease) Release(context.Context) error {
	l.agent.do(func(now time.Time) { l.agent.release(now, l) }) // after Close there is nothing to release
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

func (l *lease) end(err error) {
	if l.phase != leaseEnded {
		l.phase = leaseEnded
		l.cancel(err)
	}
}
