package highlander

import (
	"fmt"
	"time"
)

// EventKind says what happened to a singleton.
type EventKind int

const (
	// EventWaiting: Serve asks for the lease. Also after a loss.
	EventWaiting EventKind = iota + 1
	// EventAcquired: the lease is ours.
	EventAcquired
	// EventStarted: the child runs from now on. Also after a restart. If the
	// lease or ctx ends in this very moment, the child is not called after all,
	// and EventLost or EventStopping follows.
	EventStarted
	// EventFailed: the child returned an error, panicked, or is Permanent and
	// returned at all; Err says which. A restart or EventGaveUp follows.
	EventFailed
	// EventStopping: the child was told to stop; Err is the cause.
	EventStopping
	// EventOverrun: the child is still running when its time to stop is up. Until
	// it returns its lease is kept; if the lease was lost, another node may
	// have started.
	EventOverrun
	// EventStopped: the child returned after it was told to stop; Err is what it
	// returned.
	EventStopped
	// EventLost: the lease is lost; Err is ErrConflict or ErrLeaseLost.
	EventLost
	// EventDone: the child has run and will not run again; Err is what it returned.
	EventDone
	// EventGaveUp: the child failed too often; Err matches ErrTooManyRestarts.
	EventGaveUp
	// EventReleased: the lease was given up.
	EventReleased
)

var eventNames = map[EventKind]string{
	EventWaiting: "waiting", EventAcquired: "acquired", EventStarted: "started", EventFailed: "failed",
	EventStopping: "stopping", EventOverrun: "overrun", EventStopped: "stopped", EventLost: "lost",
	EventDone: "done", EventGaveUp: "gave-up", EventReleased: "released",
}

// String returns the name of k in lower case.
func (k EventKind) String() string {
	if name, ok := eventNames[k]; ok {
		return name
	}
	return fmt.Sprintf("EventKind(%d)", int(k))
}

// Event is one step in the life of a singleton.
type Event struct {
	Time  time.Time
	Kind  EventKind
	ID    string
	Node  string // this node
	Token uint64 // of the lease at that time; zero without one
	Err   error  // what the Kind says; may be nil
}
