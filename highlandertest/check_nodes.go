package highlandertest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"highlander"
)

func closeHandsOver(s *script) {
	a, b := s.nodes[0], s.nodes[1]
	first, second := s.acquire(a, "first"), s.acquire(a, "second")
	w := s.start(b, "first")
	s.queued("first", 1)
	s.close(a)
	s.isClosed(first)
	s.isClosed(second)
	s.isHeld(w.lease())
	s.isHeld(s.acquire(s.nodes[2], "second"))
	for _, l := range []*lease{first, second} { // there is nothing left to release
		s.must(s.do("Release after Close", l.Release))
	}
	s.seeHolder("first", b, b, s.nodes[2])
}

func closeEndsWaits(s *script) {
	a, b, c := s.nodes[0], s.nodes[1], s.nodes[2]
	l := s.acquire(b, "id")
	waiters := []*waiter{s.start(a, "id"), s.start(a, "id")}
	s.queued("id", 2)
	other := s.start(c, "id")
	s.queued("id", 3)
	s.close(a)
	for _, w := range waiters {
		if err := w.failure(); !errors.Is(err, highlander.ErrClosed) {
			s.t.Errorf("%v: error is %v, want ErrClosed", w, err)
		}
	}
	s.isHeld(l)
	s.release(l)
	s.isHeld(other.lease())
}

func closeIsIdempotent(s *script) {
	a, b := s.nodes[0], s.nodes[1]
	s.acquire(a, "id")
	s.close(a)
	s.close(a)
	l := s.acquire(b, "id")
	s.gone(b)
	s.together("four times Close", 4, func(context.Context, int) error { return b.Close() })
	s.isClosed(l)
	s.isHeld(s.acquire(s.nodes[2], "id"))
}

// closeDuringAcquires closes a node while it acquires. Each call ends with
// ErrClosed or with a lease that is over, and nothing stays held.
func closeDuringAcquires(s *script) {
	a, c := s.nodes[0], s.nodes[2]
	const count = 20
	id := func(i int) string { return fmt.Sprint("id", i) }
	acquired := make(chan struct{})
	var once sync.Once
	s.together("Acquires and a Close", count+1, func(ctx context.Context, i int) error {
		if i == count {
			select {
			case <-acquired: // the first of them
			case <-ctx.Done():
			}
			return a.Close()
		}
		l, err := a.Acquire(ctx, id(i), highlander.AcquireOptions{})
		if errors.Is(err, highlander.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("Acquire while the node is closed: %w, want a lease or ErrClosed", err)
		}
		once.Do(func() { close(acquired) })
		select {
		case <-l.Done():
			return nil
		case <-ctx.Done():
			return fmt.Errorf("the lease of %q outlives its node: %w", id(i), ctx.Err())
		}
	})
	for i := range count {
		s.isHeld(s.acquire(c, id(i)))
	}
}

func closedSaysSo(s *script) {
	a := s.nodes[0]
	s.acquire(s.nodes[1], "held")
	s.close(a)
	for name, call := range map[string]func(ctx context.Context) error{
		"Acquire": func(ctx context.Context) error {
			_, err := a.Acquire(ctx, "id", highlander.AcquireOptions{})
			return err
		},
		"Lookup": func(ctx context.Context) error {
			_, err := a.Lookup(ctx, "id")
			return err
		},
		"Lookup of an id that is held": func(ctx context.Context) error {
			_, err := a.Lookup(ctx, "held")
			return err
		},
		"Holders": func(ctx context.Context) error {
			_, err := a.Holders(ctx)
			return err
		},
	} {
		if err := s.do(name, call); !errors.Is(err, highlander.ErrClosed) {
			s.t.Errorf("%s after Close: error is %v, want ErrClosed", name, err)
		}
	}
}

func lateNode(s *script) {
	a := s.nodes[0]
	l := s.acquireWith(a, "id", highlander.AcquireOptions{Meta: "here"})
	d := s.open("d")
	if h := s.seeHolder("id", a, d); h.Meta != "here" || h.Token != l.Token() {
		s.t.Errorf("the late node sees %+v, want Meta here and token %d", h, l.Token())
	}
	w := s.start(d, "id")
	s.queued("id", 1)
	s.staysHeld(l)
	w.stillWaits()
	s.release(l)
	s.isHeld(w.lease())
	s.seeHolder("id", d, s.running...)
}

func returningNode(s *script) {
	a, b := s.nodes[0], s.nodes[1]
	s.acquire(a, "id")
	s.close(a)
	again := s.open("a")
	if again.Node() == a.Node() {
		s.t.Fatalf("a node that returns has its old name %q", a.Node())
	}
	l := s.acquire(b, "id")
	w := s.start(again, "id")
	s.queued("id", 1)
	s.staysHeld(l)
	w.stillWaits()
	s.release(l)
	s.isHeld(w.lease())
	s.seeHolder("id", again, b, again)
}

func crashedHolder(s *script) {
	s.needsCrash()
	a, b, c := s.nodes[0], s.nodes[1], s.nodes[2]
	l := s.acquire(a, "id")
	waiters := []*waiter{s.start(b, "id"), s.start(c, "id")}
	s.queued("id", 2)
	s.crash(a)
	next := s.firstOf(waiters).got
	if next.Token() <= l.Token() {
		s.t.Errorf("token %d of the crashed holder, then %d", l.Token(), next.Token())
	}
	s.staysHeld(next)
	if both := s.referee.out(nil); len(both) != 1 {
		s.t.Fatalf("after the crash, the holders are %v, want one", both)
	}
	s.seeHolder("id", next.node, b, c)
	s.release(next)
	for _, w := range waiters {
		w.lease()
	}
}

func crashedNode(s *script) {
	s.needsCrash()
	a, b, c := s.nodes[0], s.nodes[1], s.nodes[2]
	ids := make([]string, 50)
	for i := range ids {
		ids[i] = fmt.Sprint("id", i)
		s.acquire(a, ids[i])
	}
	waiters := make([]*waiter, len(ids))
	for i, id := range ids {
		waiters[i] = s.start(b, id)
	}
	s.crash(a)
	for i, w := range waiters {
		w.lease()
		s.seeHolder(ids[i], b, b, c)
	}
}

func crashedWaiter(s *script) {
	s.needsCrash()
	a, b, c := s.nodes[0], s.nodes[1], s.nodes[2]
	l := s.acquire(a, "id")
	dead := s.start(b, "id")
	s.queued("id", 1)
	w := s.start(c, "id")
	s.queued("id", 2)
	s.crash(b)
	s.isHeld(l)
	s.release(l)
	s.isHeld(w.lease())
	dead.cancel(errEnough)
	s.seeHolder("id", c, a, c)
}
