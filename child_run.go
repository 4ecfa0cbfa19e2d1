package highlander

import (
	"context"
	"errors"
	"runtime/debug"
)

// childRun is one run of the child. Its fields are for the goroutine that
// leads the life, but err is written before returned is closed.
type childRun struct {
	ctx      context.Context
	cancel   context.CancelCauseFunc
	told     error         // why it was told to stop; nil if it was not
	returned chan struct{} // closed when the child has returned
	skipped  bool          // it was never called
	err      error         // what it returned; valid once returned is closed
}

// newChildRun readies a run under ctx's values, but not its end: the child ends
// when it is told to, with a cause, and not before.
func newChildRun(ctx context.Context) *childRun {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	return &childRun{ctx: ctx, cancel: cancel, returned: make(chan struct{})}
}

// serve calls the child and notes what it returned or panicked with.
func (r *childRun) serve(service Service) {
	defer close(r.returned)
	defer r.cancel(nil) // ends what the child left behind under its context
	defer func() {
		if value := recover(); value != nil {
			r.err = &PanicError{Value: value, Stack: debug.Stack()}
		}
	}()
	r.err = service.Serve(r.ctx)
}

// skip is serve without the child.
func (r *childRun) skip() {
	r.skipped = true
	r.cancel(nil)
	close(r.returned)
}

// stop tells the child to stop and reports whether it was told for the first
// time. The first cause stands.
func (r *childRun) stop(cause error) bool {
	r.cancel(cause)
	if r.told != nil {
		return false
	}
	r.told = cause
	return true
}

func (r *childRun) hasReturned() bool { return isClosed(r.returned) }

// hasRun reports whether the child was called and has returned.
func (r *childRun) hasRun() bool { return r.hasReturned() && !r.skipped }

// isDone reports whether a child that ended by itself with err is done.
func (r Restart) isDone(err error) bool {
	return r == Temporary || r == Transient && err == nil
}

var errReturned = errors.New("the child returned nil, but it is permanent")
