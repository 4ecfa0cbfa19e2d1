package claims

import (
	"fmt"
	"time"
)

// Node names one process: a random number that is new at every start. Zero is
// no node.
type Node uint64

// Claim is one wish to hold an id. Its stamp is the time at which it was made.
type Claim struct {
	Node  Node
	Seq   uint64
	Stamp HLC
}

// before says whether c was made before d (rule 5).
func (c Claim) before(d Claim) bool {
	switch {
	case c.Stamp != d.Stamp:
		return c.Stamp < d.Stamp
	case c.Node != d.Node:
		return c.Node < d.Node
	}
	return c.Seq < d.Seq
}

// String returns c as node/seq.
func (c Claim) String() string {
	if c == (Claim{}) {
		return "none"
	}
	return fmt.Sprintf("n%d/%d", c.Node, c.Seq)
}

// ClaimState is what a node tells of one of its own claims.
type ClaimState struct {
	Seq     uint64
	Stamp   HLC
	Token   uint64 // the fencing token; zero while the claim waits
	Won     uint64 // the token it won with, which breaks ties; Token may be raised later
	Meta    string
	Tallies []Tally
}

// Tally is how many votes a holder counted for itself when it met a rival.
type Tally struct {
	Rival Claim
	Votes int
}

// Vote is what a node does with its one vote for an id. The epoch grows each
// time the vote moves.
type Vote struct {
	Epoch  uint64
	Claim  Claim // zero: free
	Recall bool  // another claim is better: give it back
}

// State is all that a node has to say about an id. It is never changed after
// it was made.
type State struct {
	ID     string
	Ver    HLC
	Claims []ClaimState
	Vote   Vote
	Floor  uint64 // the highest token heard of
}

// Update is a State with what it says to one peer.
type Update struct {
	*State
	Seen    HLC    // the newest version of the peer's State that has come
	Gave    uint64 // the highest epoch of the peer's vote that was given back
	WantAck bool
}

// Message is everything that one node has to say to another at one time.
type Message struct {
	From, To Node
	HLC      HLC
	Since    HLC    // when the receiver came into the sender's view
	Ping     uint64 // answer with this number; zero: no ping
	Pong     uint64 // answers a ping; zero: no pong
	Updates  []Update

	// Quorum mode.
	Bind uint64 // the votes in Updates for the receiver's claims are bound under it; grows when such votes are dropped
	Beat Beat
	Back Back
}

// Beat keeps the votes for the sender's claims where they are (rule Q2).
type Beat struct {
	K    time.Duration // when it was sent, by the sender's clock; zero: no beat
	Echo time.Duration // the newest stamp that the sender has of the receiver
}

// Back answers a Beat.
type Back struct {
	K     time.Duration // of the beat that was counted; zero: it was not
	Stamp time.Duration // when this was sent, by the sender's clock; zero: no answer
}
