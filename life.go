package highlander

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// life is one call of Serve, a state machine. Its states are the methods of
// type step; the goroutine of Serve goes through them and owns all fields, but
// for the time in which it runs the child and a watch has to stop it:
//
//	waiting -> starting -> running -> failing -> starting ...    the child failed: restart
//	                               |          -> releasing       it failed too often
//	                               -> stopping -> releasing      ctx ended
//	                               -> losing -> lost -> waiting  the lease is lost
//	                               -> done -> releasing          the child is done, then ctx ended
//	                                       -> lost -> waiting    ... or the lease is lost
//
// A lease that is lost, or a ctx that ends, in any state before the child is
// started leads to lost and releasing too, and a loss while stopping to losing.
// Only starting starts the child, and only lost and releasing, which are not
// reached while it runs, release the lease.
type life struct {
	*Singleton
	ctx       context.Context // of Serve
	log       *slog.Logger
	held      *held     // nil without a lease
	child     *childRun // nil unless it runs
	watch     *watch    // nil unless the child runs
	finished  *childRun // the last run of a child that is done
	intensity intensity
	exiting   sync.Once
	err       error // what Serve returns
}

// step is a state: it does what is to be done there and returns the next one,
// nil at the end.
type step func() step

// held is a lease and when we got it.
type held struct {
	lease Lease
	since time.Time
}

// releaseWithin is how long the cluster may take to release a lease.
const releaseWithin = 5 * time.Second

func newLife(ctx context.Context, s *Singleton) *life {
	logger := s.options.logger
	if logger == nil {
		logger = slog.Default()
	}
	return &life{
		Singleton: s,
		ctx:       ctx,
		log:       logger.With("id", s.spec.ID, "node", s.node),
		intensity: intensity{max: s.spec.MaxRestarts, window: s.spec.Window},
	}
}

// live goes through the states and returns what Serve returns.
func (l *life) live() error {
	defer l.bail()
	l.log.Debug("singleton starts; its id is the uniqueness key")
	for next := step(l.waiting); next != nil; {
		next = next()
	}
	return l.err
}

// waiting asks for the lease until it has it.
func (l *life) waiting() step {
	if l.ctx.Err() != nil {
		return l.end(l.interrupted())
	}
	l.show(Waiting, nil)
	l.emit(EventWaiting, nil)
	lease, err := l.cluster.Acquire(l.ctx, l.spec.ID, AcquireOptions{Meta: l.spec.Meta, StopWithin: l.spec.Shutdown + l.margin()})
	switch {
	case err == nil:
	case l.ctx.Err() != nil:
		return l.end(l.interrupted())
	default:
		return l.end(fmt.Errorf("highlander: child %q: acquire the lease: %w", l.spec.ID, err))
	}
	l.held = &held{lease: lease, since: time.Now()}
	l.emit(EventAcquired, nil)
	if l.finished != nil {
		return l.done
	}
	return l.starting
}

// starting readies the child, unless it must not run any more.
func (l *life) starting() step {
	switch {
	case l.leaseEnded():
		l.emit(EventLost, l.lossCause())
		return l.lost
	case l.ctx.Err() != nil:
		l.err = l.interrupted()
		return l.releasing
	}
	info := LeaseInfo{ID: l.spec.ID, Node: l.node, Since: l.held.since, lease: l.held.lease}
	l.child = newChildRun(context.WithValue(l.ctx, leaseInfoKey{}, info))
	l.show(Running, l.held)
	l.emit(EventStarted, nil)
	return l.running
}

// running runs the child, on this goroutine: that spares one for each child
// that runs. Nothing that may block stands between the look at the lease and
// the start.
func (l *life) running() step {
	l.watch = watchOver(l)
	defer guardExit(l).end()
	switch {
	case l.leaseEnded() || l.ctx.Err() != nil: // since starting
		l.child.skip()
	default:
		l.child.serve(l.spec.Service)
	}
	w := l.watch
	l.watch = nil
	if next := w.end(); next != nil {
		return next
	}
	return l.turning
}

// turning decides on what comes after running. A child that is done is done,
// whatever happened at the same moment; but a lost lease wins over the end of
// ctx, for the child must not believe that it still has the lease, and both win
// over a restart.
func (l *life) turning() step {
	switch {
	case l.child.hasRun() && l.spec.Restart.isDone(l.child.err):
		l.finished, l.child = l.child, nil
		l.emit(EventDone, l.finished.err)
		return l.done
	case l.leaseEnded():
		return l.losing
	case l.ctx.Err() != nil:
		return l.stopping
	}
	return l.failing
}

// failing decides whether a child that failed is restarted.
func (l *life) failing() step {
	failure := l.child.err
	if failure == nil {
		failure = errReturned
	}
	l.child = nil
	l.emit(EventFailed, failure)
	if !l.intensity.allow(time.Now()) {
		l.err = fmt.Errorf("%w of child %q: more than %d within %v; the last failure: %w",
			ErrTooManyRestarts, l.spec.ID, l.intensity.max, l.intensity.window, failure)
		l.emit(EventGaveUp, l.err)
		return l.releasing
	}
	l.countRestart()
	return l.starting
}

// stopping stops the child because ctx ended. The lease is still ours.
func (l *life) stopping() step {
	l.child.stop(ErrShutdown)
	l.err = l.interrupted()
	l.show(Stopping, l.held)
	l.emit(EventStopping, ErrShutdown)
	if !l.await(l.countdown(l.spec.Shutdown), l.held.lease.Done(), ErrShutdown) {
		return l.losing
	}
	l.stopped()
	return l.releasing
}

// losing stops the child because the lease is lost, before anything else.
func (l *life) losing() step {
	cause := l.lossCause()
	told := l.child.stop(cause)
	end := l.stopBy(l.held.lease)
	l.show(Stopping, l.held)
	l.emit(EventLost, cause)
	if told {
		l.emit(EventStopping, cause)
	}
	l.await(end, nil, cause)
	l.stopped()
	return l.lost
}

// lost is where a loss ends, with no child running: wait for the lease again.
func (l *life) lost() step {
	closed := errors.Is(l.held.lease.Err(), ErrClosed)
	_ = l.release() // nothing is left to release, but the engine may forget it now
	l.held = nil
	switch {
	case l.ctx.Err() != nil:
		return l.end(l.interrupted())
	case closed:
		return l.end(fmt.Errorf("highlander: child %q: the lease ended: %w", l.spec.ID, ErrClosed))
	}
	return l.waiting
}

// done keeps the lease of a child that has run, so that it runs nowhere else.
func (l *life) done() step {
	if l.options.releaseWhenDone {
		l.err = l.finished.err
		return l.releasing
	}
	l.show(Done, l.held)
	select {
	case <-l.held.lease.Done():
	case <-l.ctx.Done():
	}
	if l.leaseEnded() {
		l.emit(EventLost, l.lossCause())
		return l.lost
	}
	l.err = l.interrupted()
	return l.releasing
}

// releasing gives the lease to the next in line; Serve returns.
func (l *life) releasing() step {
	l.show(Stopping, l.held)
	if l.leaseEnded() {
		l.emit(EventLost, l.lossCause())
		_ = l.release() // nothing is left to release
	} else {
		err := l.release()
		if err != nil {
			l.log.Warn("the cluster did not confirm the release; others may have to wait for the lease to run out", "error", err)
		}
		l.emit(EventReleased, err)
	}
	l.held = nil
	return nil
}

// end is the way out of a state without a lease.
func (l *life) end(err error) step {
	l.err = err
	return nil
}

// stopBy returns the time in which the child must return once its lease is lost:
// until others may start, with WithExitOnOverrun so much less as the exit takes.
func (l *life) stopBy(lease Lease) countdown {
	if expires := lease.Expires(); !expires.IsZero() {
		return l.countdownTo(expires.Add(-l.margin()))
	}
	return l.countdown(l.spec.Shutdown)
}

// margin is what an exit of the process needs before the end of the lease.
func (l *life) margin() time.Duration {
	if l.options.exitOnOverrun {
		return exitMargin
	}
	return 0
}

// await waits until the child has returned, or until lost is closed, and
// reports whether the child has. At the end of the countdown it says so, and
// after that again and again, but ever more rarely.
func (l *life) await(end countdown, lost <-chan struct{}, cause error) bool {
	timer := time.NewTimer(end.step())
	defer timer.Stop()
	first, pause := true, max(l.spec.Shutdown, time.Second)
	for {
		select {
		case <-l.child.returned:
			return true
		case <-lost:
			return l.child.hasReturned()
		case <-timer.C:
		}
		switch {
		case l.child.hasReturned():
			return true
		case end.left() == 0:
			l.overrun(cause, first)
			first, end, pause = false, l.countdown(pause), 2*pause
		}
		timer.Reset(end.step())
	}
}

// stopped is called when the child has returned after it was told to stop.
func (l *life) stopped() {
	err := l.child.err
	l.child = nil
	l.emit(EventStopped, err)
}

// release tells the cluster that the lease is free, in a context that is not
// the one that may have ended. The child has returned.
func (l *life) release() error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), releaseWithin)
	defer cancel()
	return l.held.lease.Release(ctx)
}

// bail keeps the order stop, wait, release when a log handler or the engine
// panics, or the child or an observer ends the goroutine, as t.FailNow does. The
// child has returned by then, as it runs on this goroutine. Otherwise bail
// finds nothing to do.
func (l *life) bail() {
	defer func() {
		if l.child != nil {
			l.child.stop(ErrShutdown)
		}
		if l.held != nil {
			_ = l.release() // the panic is on its way to whoever can act
		}
	}()
	if l.watch != nil {
		l.watch.end() // which may panic, too
	}
}

// leaseEnded reports whether the lease is lost or about to run out.
func (l *life) leaseEnded() bool { return isClosed(l.held.lease.Done()) }

// lossCause says why the lease is lost, as the child may know it.
func (l *life) lossCause() error {
	if errors.Is(l.held.lease.Err(), ErrConflict) {
		return ErrConflict
	}
	return ErrLeaseLost
}

// interrupted is what Serve returns because ctx ended.
func (l *life) interrupted() error {
	return fmt.Errorf("highlander: child %q: %w", l.spec.ID, l.ctx.Err())
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
