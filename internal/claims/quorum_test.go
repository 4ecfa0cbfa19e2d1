package claims

import (
	"testing"
	"time"
)

// What the simulation does not see of quorum mode, as it does no harm by itself or
// takes more than one fault, and what forged or broken messages could do.

const testTTL = 8 * time.Second

// quorumOf returns a machine that votes, and the peers 2 and up, which it sees.
func quorumOf(voters int) *Machine {
	m := New(at(0), Config{Self: 1, Name: "n1", Quorum: voters/2 + 1, Voters: voters, TTL: testTTL})
	for n := 2; n <= voters; n++ {
		m.NodeUp(at(0), Node(n), string('a'+rune(n)), true)
	}
	m.Advance(at(9))
	return m
}

// beatOf makes m count a beat of n, with a State in which n claims id a.
func beatOf(m *Machine, s int, n Node, stamp HLC) {
	m.Receive(at(s), Message{From: n, To: 1, HLC: 7, Bind: 1, Beat: Beat{K: at(s).Up, Echo: at(s).Up}, Updates: []Update{{
		State: &State{ID: "a", Ver: 7, Claims: []ClaimState{{Seq: 1, Stamp: stamp}}, Vote: Vote{Epoch: 7}},
	}}})
}

// leaseWith has m claim id a at second s and makes it a lease with the vote of n.
func leaseWith(m *Machine, s int, n Node) Claim {
	c := m.Acquire(at(s), "a", "", 0)
	return voteOf(m, s, n, c)
}

func voteOf(m *Machine, s int, n Node, c Claim) Claim {
	m.Message(at(s), n, 10)
	vote := func(ver HLC) Message {
		return Message{From: n, To: 1, HLC: 7, Bind: 1, Back: Back{K: at(s).Up, Stamp: 5}, Updates: []Update{{
			State: &State{ID: "a", Ver: ver, Vote: Vote{Epoch: 9, Claim: c}}, Seen: m.ids["a"].ver,
		}}}
	}
	m.Receive(at(s), vote(8))
	m.Receive(at(s), vote(8)) // the token is acknowledged
	return c
}

// The voter has counted a beat, and said so a second later. Then it does not look
// at the time until a beat comes that echoes this answer. By then the TTL has
// passed since it counted: the votes are dropped before the beat is counted, and
// the answer says so.
func TestVoterLooksAtTheTimeFirst(t *testing.T) {
	m := quorumOf(3)
	beatOf(m, 10, 2, 5)
	first := m.Message(at(11), 2, 10)
	if first.Back.K == 0 || len(first.Updates) == 0 || first.Updates[0].Vote.Claim.Node != 2 {
		t.Fatalf("the first beat was answered with %+v, want a vote", first)
	}
	echo := first.Back.Stamp
	m.Receive(at(18), Message{From: 2, To: 1, HLC: 7, Bind: 1, Beat: Beat{K: at(17).Up, Echo: echo}})
	second := m.Message(at(18), 2, 10)
	if second.Back.K == 0 || second.Bind <= first.Bind {
		t.Errorf("the second beat was answered with %+v under bind %d, want a bind above %d", second.Back, second.Bind, first.Bind)
	}
	if len(second.Updates) == 0 || second.Updates[0].Vote.Epoch <= first.Updates[0].Vote.Epoch {
		t.Errorf("the answer comes with %+v, want a vote that was given anew", second.Updates)
	}
}

func TestEchoInAdvanceDoesNotCount(t *testing.T) {
	m := quorumOf(3)
	m.Receive(at(10), Message{From: 2, To: 1, Beat: Beat{K: 1, Echo: maxUp - 1}})
	if msg := m.Message(at(10), 2, 10); msg.Back.K != 0 || msg.Back.Stamp == 0 {
		t.Errorf("a beat with a stamp that was never given was counted: %+v", msg.Back)
	}
}

func TestAnswerInAdvanceDoesNotCount(t *testing.T) {
	m := quorumOf(3)
	leaseWith(m, 10, 2)
	m.Receive(at(10), Message{From: 2, To: 1, Bind: 1, Back: Back{K: at(1000).Up, Stamp: 6}})
	if acked := m.byNode[2].tie.acked; acked != at(10).Up {
		t.Errorf("a beat of %v was acknowledged, the last one is of %v", acked, at(10).Up)
	}
}

// An answer that says that a beat was not counted makes a node send one more, but
// repeated on the way it must not make it send more and more.
func TestRepeatedAnswerMakesNoBeat(t *testing.T) {
	m := quorumOf(3)
	m.Acquire(at(10), "a", "", 0)
	m.Message(at(10), 2, 10)
	for i := range 2 {
		m.Receive(at(10), Message{From: 2, To: 1, Back: Back{Stamp: 6}})
		if beat := m.Message(at(10), 2, 10).Beat; (beat.K != 0) != (i == 0) {
			t.Errorf("answer %d: beat %+v", i+1, beat)
		}
	}
}

// A voter that has forgotten a peer must not start again with a bind that it had
// before: the peer may remember a vote under it.
func TestBindOfAForgottenPeerGrows(t *testing.T) {
	m := quorumOf(3)
	beatOf(m, 10, 2, 5)
	before := m.Message(at(10), 2, 10).Bind
	m.NodeDown(at(10), 2)
	for i := range goneTicks + 20 {
		m.Tick(at(11 + i))
	}
	if m.byNode[2] != nil {
		t.Fatal("node 2 is not forgotten")
	}
	m.NodeUp(at(200), 2, "b", true)
	if after := m.Message(at(200), 2, 10).Bind; after <= before {
		t.Errorf("the bind was %d and is %d", before, after)
	}
}

// A TTL may be longer than departed nodes are remembered.
func TestBoundPeerIsNotForgotten(t *testing.T) {
	m := New(at(0), Config{Self: 1, Name: "n1", Quorum: 2, Voters: 3, TTL: 10 * time.Minute})
	m.NodeUp(at(0), 2, "n2", true)
	m.Advance(at(700))
	beatOf(m, 700, 2, 5)
	m.NodeDown(at(700), 2)
	for i := range 3 * goneTicks {
		m.Tick(at(701 + i))
	}
	m.Acquire(at(701+3*goneTicks), "a", "", 0)
	if vote := m.ids["a"].vote; vote.Claim.Node != 2 {
		t.Errorf("the vote has moved to %v", vote.Claim)
	}
	m.Advance(at(1301))
	if vote := m.ids["a"].vote; vote.Claim.Node != 1 {
		t.Errorf("the vote is for %v after the TTL", vote.Claim)
	}
}

// A lease that has the vote of a voter lasts as long as was promised, though that
// voter is dead: nobody has told the program that it may end earlier.
// A voter recalls its vote for a waiting claim, gets it back, and votes for another.
// Then the way here is dead for long, and the one to it is not: it goes on
// counting beats for a TTL, and is bound under the same number for one more. What
// comes at last is a State from before the recall.
func TestVoterIsNotForgottenBeforeItsVoteIsFree(t *testing.T) {
	const ttl = 200 // s: longer than peers are kept otherwise
	m := New(at(0), Config{Self: 1, Name: "n1", Quorum: 2, Voters: 3, TTL: ttl * time.Second})
	m.NodeUp(at(300), 2, "v", true)
	c := m.Acquire(at(300), "a", "", 0)
	says := func(s int, back Back, states ...*State) {
		msg := Message{From: 2, To: 1, HLC: 7, Since: 1, Bind: 7, Back: back}
		for _, state := range states {
			msg.Updates = append(msg.Updates, Update{State: state})
		}
		m.Receive(at(s), msg)
	}
	first := m.Message(at(300), 2, 10)
	before := &State{ID: "a", Ver: 8, Vote: Vote{Epoch: 5, Claim: c}}
	recall := &State{ID: "a", Ver: 9, Vote: Vote{Epoch: 5, Claim: c, Recall: true}}
	says(300, Back{K: first.Beat.K, Stamp: 1}, recall)
	if u := m.Message(at(300), 2, 10).Updates; len(u) != 1 || u[0].Gave != 5 {
		t.Fatalf("the vote is not given back: %+v", u)
	}
	for s := 301; s < 300+2*ttl; s++ {
		m.Tick(at(s))
		if s == 400 {
			m.NodeDown(at(s), 2)
		}
	}
	s := 300 + 2*ttl
	says(s, Back{}, before)
	m.NodeUp(at(s), 2, "v", true)
	says(s, Back{K: m.Message(at(s), 2, 10).Beat.K, Stamp: 2})
	if o := m.ids["a"].own[0]; o.token != 0 {
		t.Errorf("a claim has won with a vote that has moved: until %v", o.until)
	}
	for range goneTicks + ttl { // but it is, in the end
		s++
		m.NodeDown(at(s), 2)
		m.Tick(at(s))
	}
	if s += 2 * ttl; m.byNode[2] == nil {
		t.Error("a voter that was heard of is forgotten too early")
	}
	m.Tick(at(s))
	if m.byNode[2] != nil {
		t.Error("a voter that is gone is never forgotten")
	}
}

func TestLeaseOutlivesTheDeathOfAVoter(t *testing.T) {
	m := quorumOf(3)
	c := leaseWith(m, 10, 2)
	m.Advance(at(12))
	m.Message(at(12), 2, 10)
	m.Receive(at(12), Message{From: 2, To: 1, Bind: 1, Back: Back{K: at(12).Up, Stamp: 6}})
	m.Dead(at(12), 2)
	if want := at(12).Up + testTTL*98/100; m.Expires(c) != want {
		t.Errorf("the lease lasts until %v, want %v", m.Expires(c), want)
	}
	m.Advance(at(20))
	if events := m.Events(); len(events) == 0 || events[len(events)-1].Kind != Expired {
		t.Errorf("it ended with %+v, want that it has run out", events)
	}
}

// Two of four voters have left the view. They may be on the other side of a
// netsplit, and win there.
func TestVotersThatMayBeBackAreCounted(t *testing.T) {
	m := quorumOf(3)
	m.NodeUp(at(10), 4, "n4", true)
	m.NodeDown(at(11), 3)
	m.NodeDown(at(11), 4)
	m.Advance(at(60))
	if len(m.Excess()) != 4 {
		t.Errorf("%v are known, want 4 voters", m.Excess())
	}
	for i := range goneTicks + 1 {
		m.Tick(at(61 + i))
	}
	if m.Excess() != nil {
		t.Errorf("%v are still known after two minutes, want at most 3 voters", m.Excess())
	}
}
