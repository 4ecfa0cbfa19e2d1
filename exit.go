package highlander

import (
	"log/slog"
	"sync"
	"time"
)

const (
	// exitGrace is how long observers and log handlers can delay the exit of
	// the process, once the child had to be gone.
	exitGrace = 100 * time.Millisecond

	// exitMargin is how long before the end of the lease an overrun ends the
	// process: the report of it may take exitGrace, and as much is left for the
	// exit itself on a machine that is busy.
	exitMargin = 2 * exitGrace
)

// exitGuard ends the process if the child outlives its lease. It runs beside the
// child, on its own: neither a panic nor an observer or a log handler that
// hangs, in whatever state the life is, keeps it from that, nor an engine that
// is late to say that the lease has run out.
type exitGuard struct {
	life    *life
	lease   Lease
	child   *childRun
	running sync.WaitGroup
}

// guardExit starts an exitGuard; nil without WithExitOnOverrun. It ends when the
// child has returned.
func guardExit(l *life) *exitGuard {
	if !l.options.exitOnOverrun {
		return nil
	}
	g := &exitGuard{life: l, lease: l.held.lease, child: l.child}
	g.running.Go(g.watch)
	return g
}

// end returns when the guard has ended. The child has returned.
func (g *exitGuard) end() {
	if g != nil {
		g.running.Wait()
	}
}

func (g *exitGuard) watch() {
	if !g.outlived() {
		return
	}
	var said <-chan struct{} // never, if the life says it: then it exits, too
	if !isClosed(g.lease.Done()) {
		said = g.say()
	}
	grace := time.NewTimer(exitGrace)
	defer grace.Stop()
	select {
	case <-g.child.returned:
		return
	case <-said:
	case <-grace.C:
	}
	g.life.exitOnce()
}

// outlived returns when the child has returned, or has to be gone and is not.
// While the lease is held, the end of that time moves on as it is renewed.
func (g *exitGuard) outlived() bool {
	ends := make(chan countdown)
	g.running.Go(func() { g.ask(ends) })
	lost := g.lease.Done()
	var end countdown
	var look <-chan time.Time // nil while nothing is known to end
	timer := time.NewTimer(lookEvery)
	defer timer.Stop()
	for {
		select {
		case <-g.child.returned:
			return false
		case end = <-ends:
		case <-lost:
			lost = nil
			if look == nil { // the engine may know of no end
				end = g.life.countdown(g.life.spec.Shutdown)
			}
		case <-look:
			if end.left() == 0 {
				return !g.child.hasReturned()
			}
		}
		look = timer.C
		timer.Reset(end.step())
	}
}

// ask asks again and again when the child has to be gone, for the last time when
// the lease is lost. An engine that hangs keeps nobody else waiting: what is
// known of the lease then is that it was not renewed.
func (g *exitGuard) ask(ends chan<- countdown) {
	timer := time.NewTimer(lookEvery)
	defer timer.Stop()
	for lost := false; !lost; timer.Reset(lookEvery) {
		lost = isClosed(g.lease.Done())
		if !g.lease.Expires().IsZero() {
			select {
			case ends <- g.life.stopBy(g.lease):
			case <-g.child.returned:
				return
			}
		}
		if lost {
			return
		}
		select {
		case <-timer.C:
		case <-g.lease.Done():
		case <-g.child.returned:
			return
		}
	}
}

// say logs why the process ends when the life knows nothing of it yet.
func (g *exitGuard) say() (said <-chan struct{}) {
	done := make(chan struct{})
	go func() { // not waited for: it may hang, and the process ends
		defer close(done)
		defer func() { _ = recover() }() // a panic of the log handler; the exit comes all the same
		g.life.log.Error("the lease has run out and the engine has not said so; ending the process", slog.Uint64("token", g.lease.Token()))
	}()
	return done
}

// exitOnce ends the process.
func (l *life) exitOnce() { l.exiting.Do(func() { l.exit(1) }) }
