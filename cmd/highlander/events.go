package main

import (
	"encoding/json"
	"os"
	"time"

	"highlander"
)

// eventLine is a line of the file of events.
type eventLine struct {
	Time  time.Time `json:"time"`
	Event string    `json:"event"`
	ID    string    `json:"id"`
	Node  string    `json:"node"`
	Token uint64    `json:"token,omitempty"`
	Cause string    `json:"cause,omitempty"`
}

// writeEvents returns an observer that writes to f.
func (j *job) writeEvents(f *os.File) func(highlander.Event) {
	out := json.NewEncoder(f)
	return func(e highlander.Event) {
		l := eventLine{Time: e.Time, Event: e.Kind.String(), ID: e.ID, Node: e.Node, Token: e.Token}
		if e.Err != nil {
			l.Cause = e.Err.Error()
		}
		if err := out.Encode(l); err != nil {
			j.log.Error("cannot write an event", "file", f.Name(), "error", err)
		}
	}
}
