package highlander

import (
	"errors"
	"fmt"
)

// Why a child must stop: context.Cause of the child's context is one of these
// while it stops. ErrConflict and ErrLeaseLost also match ErrShutdown with
// errors.Is, so a child that only wants to know that it was told to stop needs
// one comparison.
var (
	// ErrShutdown is the cause when the program, or the supervisor above,
	// ends the singleton: the lease is still held while the child cleans up.
	ErrShutdown = errors.New("highlander: shutdown")

	// ErrConflict is the cause when two nodes held the same id, as after a
	// healed netsplit, and this one has to yield. The other one is running.
	ErrConflict error = lossError("highlander: another node holds the id")

	// ErrLeaseLost is the cause when the lease is gone or about to run out:
	// another node may start the child from Lease.Expires on.
	ErrLeaseLost error = lossError("highlander: lease lost")
)

var (
	// ErrTooManyRestarts is returned by Singleton.Serve, wrapping the last
	// failure, when the child failed more often than its intensity allows.
	ErrTooManyRestarts = errors.New("highlander: too many restarts")

	// ErrNotHeld is returned by Cluster.Lookup when nobody holds the id.
	ErrNotHeld = errors.New("highlander: not held by any node")

	// ErrClosed is returned by the methods of a Cluster that was closed.
	ErrClosed = errors.New("highlander: cluster closed")

	// ErrInvalidID is matched by the error for an id that breaks the rules of
	// ChildSpec.ID.
	ErrInvalidID = errors.New("invalid id")
)

// lossError is a reason to stop that is also a shutdown.
type lossError string

func (e lossError) Error() string        { return string(e) }
func (e lossError) Is(target error) bool { return target == ErrShutdown }

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
