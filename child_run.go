package highlander

import (
	"context"
	"errors"
	"fmt"
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

// PanicError is the failure of a child that panicked. It is what errors.As
// finds in Event.Err and in the error of Serve.
type PanicError struct {
	Value any    // what the child panicked with
	Stack []byte // of its goroutine, as from debug.Stack
}

// Error returns one line, without the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns Value if it is an error, else nil.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

var errReturned = errors.New("the child returned nil, but it is permanent")
