package highlander

import (
	"context"
	"fmt"
	"time"
)

// State says where a Singleton is in its life.
type State int

const (
	// Idle: Serve is not running.
	Idle State = iota
	// Waiting: Serve waits for the lease.
	Waiting
	// Running: the child runs.
	Running
	// Stopping: the child was told to stop and has not returned yet, or the
	// lease is being released.
	Stopping
	// Done: the child has run and will not run again; the lease is kept.
	Done
)

// String returns the name of s in lower case.
func (s State) String() string {
	switch s {
	case Idle:
		return "idle"
	case Waiting:
		return "waiting"
	case Running:
		return "running"
	case Stopping:
		return "stopping"
	case Done:
		return "done"
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// Status is a Singleton at one moment.
type Status struct {
	ID       string
	State    State
	Node     string // this node; empty before the first Serve
	Holder   Holder // who has the lease, this node or another; zero if unknown or nobody
	Token    uint64 // of the lease this node has; zero without one
	Restarts int    // of the child after failures, since Serve was called
}

// lookupWithin is how long Status asks the cluster.
const lookupWithin = time.Second

// Status returns what the singleton does now. It may be called at any time and
// concurrently. A node that has the lease answers at once; otherwise Holder is
// looked up in the cluster, which takes up to one second when the cluster does
// not answer, and Holder is zero then.
func (s *Singleton) Status() Status {
	s.mu.Lock()
	held := s.held
	status := Status{ID: s.spec.ID, State: s.state, Node: s.node, Restarts: s.restarts}
	s.mu.Unlock()

	switch {
	case s.invalid != nil:
	case held != nil && !isClosed(held.lease.Done()):
		status.Token = held.lease.Token()
		status.Holder = Holder{ID: status.ID, Node: status.Node, Meta: s.spec.Meta, Token: status.Token, Since: held.since}
	default:
		ctx, cancel := context.WithTimeout(context.Background(), lookupWithin)
		defer cancel()
		if holder, err := s.cluster.Lookup(ctx, status.ID); err == nil {
			status.Holder = holder
		}
	}
	return status
}

// show sets what Status shows.
func (s *Singleton) show(state State, h *held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.held = state, h
}

func (s *Singleton) countRestart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restarts++
}
