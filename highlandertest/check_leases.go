package highlandertest

import (
	"context"
	"sync/atomic"

	"highlander"
)

func oneNodeAtATime(s *script) {
	id := s.id("id")
	l := s.acquire(s.nodes[0], id)
	b, c := s.start(s.nodes[1], id), s.start(s.nodes[2], id)
	s.queued(id, 2)
	s.staysHeld(l)
	b.stillWaits()
	c.stillWaits()

	s.release(l)
	first, second := b, c
	if s.firstOf([]*waiter{b, c}) == c {
		first, second = c, b
	}
	s.staysHeld(first.got)
	second.stillWaits()
	s.release(first.got)
	s.isHeld(second.lease())
}

func twoInOneProcess(s *script) {
	id := s.id("id")
	l := s.acquire(s.nodes[0], id)
	other := s.start(s.nodes[0], id)
	s.queued(id, 1)
	s.staysHeld(l)
	other.stillWaits()
	s.release(l)
	s.isHeld(other.lease())
}

func releaseHandsOver(s *script) {
	id := s.id("id")
	l := s.acquire(s.nodes[0], id)
	for _, node := range []highlander.Cluster{s.nodes[1], s.nodes[2], s.nodes[2], s.nodes[0]} {
		next := s.start(node, id)
		s.queued(id, 1)
		s.release(l)
		l = next.lease()
		s.isHeld(l)
	}
}

func firstComeAcrossNodes(s *script) {
	a, b, c := s.nodes[0], s.nodes[1], s.nodes[2]
	firstCome(s, a, []highlander.Cluster{c, b, a, b, c, a})
}

func firstComeWithinProcess(s *script) {
	b := s.nodes[1]
	firstCome(s, b, []highlander.Cluster{b, b, b, b, b})
}

// firstCome queues waiters one after the other behind a holder, and lets each
// have its turn.
func firstCome(s *script, holder highlander.Cluster, queue []highlander.Cluster) {
	if s.fixture.Waiting == nil {
		s.t.Skip("Fixture.Waiting is nil: the engine is not first come, first served")
	}
	id := s.id("id")
	l := s.acquire(holder, id)
	var waiters []*waiter
	for i, node := range queue {
		waiters = append(waiters, s.start(node, id))
		s.queued(id, i+1)
	}
	for i, w := range waiters {
		s.release(l)
		first := s.firstOf(waiters[i:])
		if first != w {
			s.t.Fatalf("number %d in the queue is %v, but %v was served first", i+1, w, first)
		}
		l = first.got
	}
}

func releasedLeaseIsDone(s *script) {
	l := s.acquire(s.nodes[0], s.id("id"))
	s.isHeld(l)
	s.release(l)
	select {
	case <-l.Done():
	default:
		s.t.Fatalf("%v: Done is open after Release", l)
	}
	s.isClosed(l)
}

// afterFuncRuns checks the method that a lease may have.
func afterFuncRuns(s *script) {
	l := s.acquire(s.nodes[0], s.id("id"))
	with, ok := l.Lease.(interface{ AfterFunc(func()) func() bool })
	if !ok {
		s.t.Skip("the leases of this engine have no AfterFunc, and need none")
	}
	ran, ranLater := make(chan struct{}), make(chan struct{})
	var early, stopped atomic.Bool
	with.AfterFunc(func() {
		select {
		case <-l.Done():
		default:
			early.Store(true)
		}
		close(ran)
	})
	if stop := with.AfterFunc(func() { stopped.Store(true) }); !stop() {
		s.t.Error("the function of AfterFunc cannot be stopped while the lease is held")
	}
	s.staysHeld(l)
	s.release(l)
	s.receive(ran, "AfterFunc calls its function after the end")
	with.AfterFunc(func() { close(ranLater) })
	s.receive(ranLater, "AfterFunc calls a function that it is given after the end")
	if early.Load() {
		s.t.Error("AfterFunc calls its function before Done is closed")
	}
	if stopped.Load() {
		s.t.Error("AfterFunc calls a function that was stopped")
	}
}

func releaseIsIdempotent(s *script) {
	id := s.id("id")
	l := s.acquire(s.nodes[0], id)
	s.release(l)
	s.release(l)

	next := s.acquire(s.nodes[1], id)
	other := s.start(s.nodes[0], id)
	s.queued(id, 1)
	s.release(l) // again, and it must not touch the lease of the next
	s.staysHeld(next)
	other.stillWaits()
	s.release(next)
	other.lease()
	s.isClosed(l)
}

func releaseConcurrently(s *script) {
	id := s.id("id")
	for range 5 {
		l := s.acquire(s.nodes[0], id)
		b, c := s.start(s.nodes[1], id), s.start(s.nodes[2], id)
		s.queued(id, 2)
		s.referee.leave(l)
		s.together("eight times Release", 8, func(ctx context.Context, _ int) error { return l.Release(ctx) })
		first := s.firstOf([]*waiter{b, c})
		s.staysHeld(first.got)
		s.release(first.got)
		s.release(b.lease())
		s.release(c.lease())
	}
}

func tokensGrow(s *script) {
	id := s.id("id")
	var last uint64
	for i := range 30 { // with and without somebody waiting
		l := s.acquire(s.nodes[i%3], id)
		next := s.start(s.nodes[(i*i)%3], id)
		s.release(l)
		after := next.lease()
		if l.Token() <= last || after.Token() <= l.Token() {
			s.t.Fatalf("tokens %d, %d, %d of lease %d do not grow", last, l.Token(), after.Token(), i)
		}
		last = after.Token()
		s.release(after)
	}
}
