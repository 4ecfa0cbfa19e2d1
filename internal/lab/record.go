package lab

import (
	"slices"
	"time"
)

// Record is what happened in a lab: all that Check looks at. Times are those
// of the ledger.
type Record struct {
	TTL      time.Duration // of the leases, in quorum mode; zero: available mode
	Quorum   int           // votes that a lease takes; zero: available mode
	Shutdown time.Duration // what a child has from SIGTERM to SIGKILL
	Begin    time.Duration
	End      time.Duration

	Ledger    []Line
	Faults    []Fault
	Processes []Process // highlander's
	Calms     []Span    // from the end of a fault, and the recovery of what it broke, to the next one
	Stalls    []Span    // when this machine was too busy to be taken at its word
	Left      []string  // processes that were there after the last highlander had ended
}

// Span is a time.
type Span struct{ From, Until time.Duration }

func (s Span) overlaps(o Span) bool      { return s.From <= o.Until && o.From <= s.Until }
func (s Span) has(at time.Duration) bool { return s.From <= at && at <= s.Until }
func (s Span) length() time.Duration     { return s.Until - s.From }
func (s Span) grow(d time.Duration) Span { return Span{s.From, s.Until + d} }
func (s Span) meets(spans []Span) bool   { return slices.ContainsFunc(spans, s.overlaps) }
func lengthOf(spans []Span) (d time.Duration) {
	for _, s := range spans {
		d += s.length()
	}
	return d
}

// Fault is one entry of the log of faults.
type Fault struct {
	Span
	Number int
	Kind   Kind
	What   string     // for people
	Nodes  []string   // whom it hits
	Sides  [][]string // of a full split
}

// Kind is a kind of fault.
type Kind string

const (
	KillHighlander Kind = "kill -9 highlander"
	KillGuard      Kind = "kill -9 guard"
	KillKeeper     Kind = "kill -9 keeper"
	KillBoth       Kind = "kill -9 highlander+guard"
	Terminate      Kind = "SIGTERM"
	FreezeOne      Kind = "freeze highlander"
	FreezeBoth     Kind = "freeze highlander+guard"
	Split          Kind = "split"
	SplitUntilWon  Kind = "split healed at the win"
	Partial        Kind = "partial partition"
	OneWay         Kind = "one-way loss"
	Loss           Kind = "packet loss"
	Delay          Kind = "delay and jitter"
	Rolling        Kind = "rolling restart"
	KillAll        Kind = "kill -9 all highlanders"
	TerminateAll   Kind = "SIGTERM to all"
	FreezeAll      Kind = "freeze all highlanders"
)

// Kinds are all kinds of faults, in the order of tables.
var Kinds = []Kind{
	KillHighlander, KillGuard, KillKeeper, KillBoth, Terminate, FreezeOne, FreezeBoth, Split, SplitUntilWon,
	Partial, OneWay, Loss, Delay, Rolling, KillAll, TerminateAll, FreezeAll,
}

// parts the network, or makes a node miss what the others say: what may give
// available mode a second holder.
func (k Kind) parts() bool {
	switch k {
	case Split, SplitUntilWon, Partial, OneWay, Loss, Delay, FreezeOne, FreezeBoth, FreezeAll:
		return true
	}
	return false
}

// freezes says whether highlander is stopped.
func (k Kind) freezes() bool { return k == FreezeOne || k == FreezeBoth || k == FreezeAll }

// Process is the life of one highlander process. What did not happen is zero.
type Process struct {
	Node    string // without incarnation
	PID     int
	Started time.Duration
	Termed  time.Duration // when the lab sent SIGTERM ...
	Killed  time.Duration // ... or SIGKILL
	Exited  time.Duration
	How     string // it ended
}

// life is a child, from its first to its last sign.
type life struct {
	start   Line
	last    time.Duration // of its own lines
	term    time.Duration // its first SIGTERM, or since when that may have been there; zero: none
	pause   Span          // the last one in which it did not get to run
	stop    time.Duration // it ended by itself
	overlap time.Duration // it found the lock taken ...
	other   string        // ... by this one
	alone   time.Duration // ... and got it later
	dead    time.Duration // seen to be gone; zero: never
}

// pausedAfter is the time without a tick, of which there are a hundred a second,
// from which on a child did not get to run.
const pausedAfter = 50 * time.Millisecond

// lives reads the children and grandchildren out of a ledger.
func lives(ledger []Line) (children, grandchildren []*life) {
	latest := map[int]*life{}
	for _, line := range ledger {
		if line.Entry == Start || line.Entry == Fork {
			l := &life{start: line}
			latest[line.PID] = l
			if line.Entry == Start {
				children = append(children, l)
			} else {
				grandchildren = append(grandchildren, l)
			}
		}
		l := latest[line.PID]
		if l == nil {
			continue // Check complains
		}
		l.note(line) // its last ones may come after Dead
	}
	return children, grandchildren
}

func (l *life) note(line Line) {
	if line.Entry != Dead {
		if l.last != 0 && line.At-l.last > pausedAfter {
			l.pause = Span{l.last, line.At}
		}
		l.last = max(l.last, line.At)
	}
	switch line.Entry {
	case Term:
		if l.term == 0 {
			l.term = line.At
			if line.At-l.pause.Until < pausedAfter { // it has only now come to say so
				l.term = l.pause.From
			}
		}
	case Stop:
		l.stop = line.At
	case Overlap:
		l.overlap, l.other = line.At, line.Note
	case Alone:
		l.alone = line.At
	case Dead:
		l.dead = line.At
	}
}

// lived is the time in which l ran, as seen from outside.
func (l *life) lived(end time.Duration) Span {
	if l.dead != 0 {
		end = l.dead
	}
	return Span{l.start.At, end}
}

// overlapped is the time in which l ran beside another child, exact to what the
// lock says.
func (l *life) overlapped(end time.Duration) (Span, bool) {
	if l.overlap == 0 {
		return Span{}, false
	}
	s := l.lived(end)
	if l.alone != 0 {
		s.Until = min(s.Until, l.alone)
	}
	return s, true
}
