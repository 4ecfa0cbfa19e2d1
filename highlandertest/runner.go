package highlandertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"highlander"
)

// runner does what a highlander.Singleton does: it acquires an id and runs a
// child, which is slow to stop when it is told to; it releases the lease, and
// acquires anew.
type runner struct {
	s        *script
	timeline *timeline
	node     highlander.Cluster
	id       string
	stops    stopping

	ctx  context.Context
	quit context.CancelCauseFunc
	done chan struct{} // closed when nothing is left of it

	mu   sync.Mutex
	held *lease // the newest
}

// stopping is how long a child takes to stop once its lease is lost.
type stopping int

const (
	stopsWithin   stopping = iota // nearly all of StopWithin
	stopsAtTheEnd                 // until its lease has run out
)

func (r *runner) String() string {
	return fmt.Sprintf("the singleton of %q at %s", r.id, r.node.Node())
}

// run starts a runner. It is stopped when the check is over.
func (s *script) run(tl *timeline, node highlander.Cluster, id string, stops stopping) *runner {
	ctx, quit := context.WithCancelCause(context.Background())
	r := &runner{s: s, timeline: tl, node: node, id: id, stops: stops, ctx: ctx, quit: quit, done: make(chan struct{})}
	s.t.Cleanup(r.stop)
	go func() {
		defer close(r.done)
		for ctx.Err() == nil {
			r.live()
		}
	}()
	return r
}

// stop ends the child, if it runs, and then the runner.
func (r *runner) stop() {
	r.s.t.Helper()
	r.quit(errEnough)
	r.s.receive(r.done, "%v comes to an end", r)
}

// live is from one Acquire to the Release.
func (r *runner) live() {
	inner, err := r.node.Acquire(r.ctx, r.id, highlander.AcquireOptions{StopWithin: r.s.longestStop()})
	if err != nil {
		if !errors.Is(err, errEnough) {
			r.s.t.Errorf("%v: Acquire: %v", r, err)
			r.quit(errEnough)
		}
		return
	}
	l := &lease{inner, r.id, r.node}
	sp, objection := r.timeline.granted(l)
	if objection != nil {
		r.s.t.Error(objection)
	}
	r.mu.Lock()
	r.held = l
	r.mu.Unlock()
	if l.Err() == nil { // else the child is not started at all
		r.runChild(sp, l)
	}
	ctx, cancel := context.WithTimeout(context.Background(), r.s.fixture.TTL)
	defer cancel()
	_ = l.Release(ctx) // the server may be away; then others wait for the end of the lease
}

// runChild returns when the child has stopped.
func (r *runner) runChild(sp *span, l *lease) {
	select {
	case <-l.Done():
		r.stopChild(sp, l)
	case <-r.ctx.Done():
		r.timeline.stopping(sp, time.Now())
	}
}

// stopChild returns when the child has stopped whose lease is lost.
func (r *runner) stopChild(sp *span, l *lease) {
	told, ends := time.Now(), l.Expires()
	stops := ends
	if soon := told.Add(r.s.longestStop() * 9 / 10); r.stops == stopsWithin && soon.Before(ends) {
		stops = soon
	}
	r.timeline.stopping(sp, stops)
	r.s.inTime(l, told, ends)
	if err := l.Err(); !errors.Is(err, highlander.ErrLeaseLost) && !errors.Is(err, highlander.ErrConflict) {
		r.s.t.Errorf("%v: Err is %v, want ErrLeaseLost or ErrConflict", l, err)
	}
	time.Sleep(time.Until(stops))
}

// holds returns the lease that the child runs under, nil if there is none.
func (r *runner) holds() *lease {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held == nil || r.held.Err() != nil {
		return nil
	}
	return r.held
}

// waitUntilHeld waits until one of the runners has a lease, and returns both.
func (s *script) waitUntilHeld(id string, runners ...*runner) (holder *runner, held *lease) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("somebody holds %q", id), func() error {
		for _, r := range runners {
			if held = r.holds(); held != nil {
				holder = r
				return nil
			}
		}
		return errors.New("nobody does")
	})
	return holder, held
}

// eachHasItsTurn stops whoever holds the id until each runner has held it: none
// of them was left behind.
func (s *script) eachHasItsTurn(runners []*runner) {
	s.t.Helper()
	for left := slices.Clone(runners); len(left) > 0; {
		holder, _ := s.waitUntilHeld(left[0].id, left...)
		holder.stop()
		left = slices.DeleteFunc(left, func(r *runner) bool { return r == holder })
	}
}
