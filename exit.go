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
	lost := g.lease.Done()
	var end countdown
	timer := time.NewTimer(lookEvery)
	defer timer.Stop()
	for {
		counting := lost == nil || !g.lease.Expires().IsZero()
		if lost != nil && counting {
			end = g.life.stopBy(g.lease)
		}
		var look <-chan time.Time
		if counting {
			if end.left() == 0 {
				return !g.child.hasReturned()
			}
			timer.Reset(end.step())
			look = timer.C
		}
		select {
		case <-g.child.returned:
			return false
		case <-lost:
			lost = nil
			end = g.life.stopBy(g.lease)
		case <-look:
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
