package highlander

import (
	"context"
	"runtime"
	"sync"
)

// watch looks after a child while the goroutine of Serve runs it. When the
// lease or Serve's ctx ends, it takes over the life, in a goroutine that exists
// from then on only, and leads it until the child has returned.
type watch struct {
	life *life
	next chan result // what the watch hands back once it has taken over

	mu    sync.Mutex
	state watchState

	forgetCtx, forgetLease func() bool
}

type watchState int

const (
	watchArmed   watchState = iota
	watchLeading            // it has taken over
	watchOff                // the child returned first
)

// result is how a watch that has taken over leaves off: with the next step after
// the child has returned, with a panic to go on with, or with neither if its
// goroutine was ended, as by t.FailNow in an observer.
type result struct {
	next     step
	panicked any
}

// watchOver begins to watch.
func watchOver(l *life) *watch {
	w := &watch{life: l}
	w.forgetCtx = context.AfterFunc(l.ctx, w.wake)
	w.forgetLease = afterLease(l.held.lease, w.wake)
	return w
}

// afterLease runs f in a goroutine of its own when lease has ended, unless
// stop is called before. An engine whose leases have a method AfterFunc, as of
// context.AfterFunc, spares the goroutine that would wait for that.
func afterLease(lease Lease, f func()) (stop func() bool) {
	if l, ok := lease.(interface{ AfterFunc(func()) func() bool }); ok {
		return l.AfterFunc(f)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var waiting sync.WaitGroup
	waiting.Go(func() {
		select {
		case <-lease.Done():
			f()
		case <-ctx.Done():
		}
	})
	return func() bool {
		cancel()
		waiting.Wait()
		return true
	}
}

// wake takes over, if the child has not returned and nobody else has.
func (w *watch) wake() {
	w.mu.Lock()
	armed := w.state == watchArmed
	if armed {
		w.state = watchLeading
		w.next = make(chan result, 1)
	}
	w.mu.Unlock()
	if armed {
		w.lead()
	}
}

// lead goes through the steps until no child runs.
func (w *watch) lead() {
	var r result
	defer func() {
		r.panicked = recover()
		w.next <- r
	}()
	next := w.life.turning()
	for w.life.child != nil {
		next = next()
	}
	r.next = next
}

// end stops watching. It is called by the goroutine of Serve after the child
// has returned. If the watch has taken over, it returns the step that comes
// next, else nil. What ended the goroutine of the watch ends that of Serve.
func (w *watch) end() step {
	w.mu.Lock()
	leading := w.state == watchLeading
	if !leading {
		w.state = watchOff
	}
	w.mu.Unlock()
	var r result
	if leading {
		r = <-w.next
	}
	w.forgetCtx()
	w.forgetLease()
	switch {
	case r.panicked != nil:
		panic(r.panicked)
	case leading && r.next == nil:
		runtime.Goexit()
	}
	return r.next
}
