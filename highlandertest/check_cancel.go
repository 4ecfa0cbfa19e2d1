package highlandertest

import (
	"context"
	"errors"

	"highlander"
)

var errEnough = errors.New("the caller has waited enough")

func endedContext(s *script) {
	id := s.id("id")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errEnough)
	for _, node := range s.nodes {
		err := s.do("Acquire with a context that has ended", func(context.Context) error {
			_, err := s.acquireNow(ctx, node, id, highlander.AcquireOptions{})
			return err
		})
		if !errors.Is(err, errEnough) {
			s.t.Fatalf("%v, want the cause of the context: %v", err, errEnough)
		}
	}
	s.seeNobody(id)
	s.release(s.acquire(s.nodes[0], id))
}

func cancelEndsWait(s *script) {
	id := s.id("id")
	l := s.acquire(s.nodes[0], id)
	for _, node := range s.nodes {
		for _, cause := range []error{errEnough, context.Canceled} {
			w := s.start(node, id)
			s.queued(id, 1)
			w.cancel(cause)
			if err := w.failure(); !errors.Is(err, cause) {
				s.t.Fatalf("%v: error is %q, want the cause of the context: %q", w, err, cause)
			}
		}
	}
	s.staysHeld(l)
}

func cancelLeavesQueue(s *script) {
	id := s.id("id")
	a, b, c := s.nodes[0], s.nodes[1], s.nodes[2]
	l := s.acquire(a, id)
	gone := []*waiter{s.start(b, id), s.start(a, id)}
	s.queued(id, 2)
	stays := s.start(c, id)
	s.queued(id, 3)
	for _, w := range gone {
		w.cancel(errEnough)
		_ = w.failure()
	}
	s.release(l)
	l = stays.lease()
	s.staysHeld(l)
	s.release(l)
	s.seeNobody(id)
}

// cancelDuringHandOver ends a context while its Acquire is being served: it
// returns either the lease or the cause, and in the latter case has nothing.
func cancelDuringHandOver(s *script) {
	id := s.id("id")
	for i := range 30 {
		l := s.acquire(s.nodes[0], id)
		w := s.start(s.nodes[1+i%2], id)
		s.queued(id, 1)
		s.referee.leave(l)
		if i%3 == 0 { // the cancel is first, by a hair
			w.cancel(errEnough)
		}
		s.together("Release and cancel at once", 2, func(ctx context.Context, i int) error {
			if i == 0 {
				return l.Release(ctx)
			}
			w.cancel(errEnough)
			return nil
		})
		s.receive(w.done, "%v returns", w)
		switch {
		case w.err == nil:
			s.isHeld(w.got)
			s.release(w.got)
		case !errors.Is(w.err, errEnough):
			s.t.Fatalf("%v: %v, want the lease or %q", w, w.err, errEnough)
		}
	}
	s.release(s.acquire(s.nodes[0], id))
	s.seeNobody(id)
}
