package lab

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Entry is what a line of the ledger says happened.
type Entry string

// What children write. All but Fork are about the child itself.
const (
	Start   Entry = "start"   // it begins; written before it looks for others
	Overlap Entry = "overlap" // another one has the lock of the id: Note says who
	Alone   Entry = "alone"   // the lock is its own now, after an Overlap
	Tick    Entry = "tick"    // it runs
	Term    Entry = "term"    // it got a SIGTERM
	Stop    Entry = "stop"    // it ends by itself, as its last act
	Fork    Entry = "fork"    // a grandchild begins: Note is the child's process id
)

// Dead is what the lab writes when the process of a child or grandchild has
// ended. That is noticed late, by as much as the machine is busy.
const Dead Entry = "dead"

// Line is a line of the ledger.
type Line struct {
	At    time.Duration // by the monotonic clock of the machine
	Entry Entry
	Node  string // name#incarnation
	PID   int
	Token uint64
	Note  string
}

// String returns the line as it stands in the ledger, without its end.
func (l Line) String() string {
	return strings.TrimRight(fmt.Sprintf("%d %s %s %d %d %s", l.At.Nanoseconds(), l.Entry, l.Node, l.PID, l.Token, l.Note), " ")
}

// Name is the name of the node without its incarnation.
func (l Line) Name() string { return nameOf(l.Node) }

func nameOf(node string) string {
	name, _, _ := strings.Cut(node, "#")
	return name
}

// ParseLine parses what String returns.
func ParseLine(text string) (Line, error) {
	fields := strings.SplitN(text, " ", 6)
	if len(fields) < 5 {
		return Line{}, fmt.Errorf("ledger line %q has %d fields; 5 or 6 are allowed", text, len(fields))
	}
	at, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return Line{}, fmt.Errorf("ledger line %q: time: %w", text, err)
	}
	pid, err := strconv.Atoi(fields[3])
	if err != nil {
		return Line{}, fmt.Errorf("ledger line %q: process id: %w", text, err)
	}
	token, err := strconv.ParseUint(fields[4], 10, 64)
	if err != nil {
		return Line{}, fmt.Errorf("ledger line %q: token: %w", text, err)
	}
	l := Line{At: time.Duration(at), Entry: Entry(fields[1]), Node: fields[2], PID: pid, Token: token}
	if len(fields) == 6 {
		l.Note = fields[5]
	}
	return l, nil
}

// parseLines parses the whole lines in data and returns what is left.
func parseLines(data []byte) (lines []Line, rest []byte, err error) {
	for {
		text, after, whole := bytes.Cut(data, []byte("\n"))
		if !whole {
			return lines, data, nil
		}
		l, err := ParseLine(string(text))
		if err != nil {
			return lines, data, err
		}
		lines, data = append(lines, l), after
	}
}
