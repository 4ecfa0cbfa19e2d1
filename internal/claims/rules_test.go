package claims

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// A message can be forged, or come from a peer that is broken. These tests
// show that no such message can put the machine out of order for good.

func at(s int) Instant { return simStart.add(time.Duration(s) * time.Second) }

// state returns a message of node 2 for node 1 with one State of id a.
func stateOf2(change func(*Message, *Update)) Message {
	msg := Message{From: 2, To: 1, HLC: 7, Since: 7}
	u := Update{State: &State{ID: "a", Ver: 7, Vote: Vote{Epoch: 7}}}
	change(&msg, &u)
	msg.Updates = []Update{u}
	return msg
}

func TestMessagesOutOfRangeAreDropped(t *testing.T) {
	limit := bound(at(0).Wall)
	for name, change := range map[string]func(*Message, *Update){
		"clock":   func(m *Message, _ *Update) { m.HLC = limit },
		"since":   func(m *Message, _ *Update) { m.Since = limit },
		"version": func(_ *Message, u *Update) { u.Ver = limit },
		"floor":   func(_ *Message, u *Update) { u.Floor = uint64(limit) },
		"epoch":   func(_ *Message, u *Update) { u.Vote.Epoch = uint64(limit) },
		"token":   func(_ *Message, u *Update) { u.Claims = []ClaimState{{Seq: 1, Token: uint64(limit)}} },
		"stamp":   func(_ *Message, u *Update) { u.Claims = []ClaimState{{Seq: 1, Stamp: limit}} },
		"bind":    func(m *Message, _ *Update) { m.Bind = uint64(limit) },
		"beat":    func(m *Message, _ *Update) { m.Beat.K = maxUp },
		"echo":    func(m *Message, _ *Update) { m.Beat.Echo = -1 },
		"back":    func(m *Message, _ *Update) { m.Back.K = maxUp },
		"answer":  func(m *Message, _ *Update) { m.Back.Stamp = maxUp },
		"nobody":  func(m *Message, _ *Update) { m.From = 0 },
		"self":    func(m *Message, _ *Update) { m.From = 1 },
		"other":   func(m *Message, _ *Update) { m.To = 3 }, // an earlier start of this process
	} {
		t.Run(name, func(t *testing.T) {
			m := New(at(0), Config{Self: 1})
			m.NodeUp(at(0), 2, "", true)
			m.Receive(at(0), stateOf2(change))
			if len(m.ids) != 0 || m.HLC() >= limit {
				t.Errorf("the message was taken: %d ids, clock %d", len(m.ids), m.HLC())
			}
		})
	}
}

// Somebody takes the clock, the tokens and the votes of a node as far ahead as
// they go. The node still has its say: what follows is accepted by the others a
// moment later, and its claim wins. A bound that stands still would silence it.
func TestClockAtTheBoundSilencesNobody(t *testing.T) {
	a, b := New(at(0), Config{Self: 1}), New(at(0), Config{Self: 2})
	a.NodeUp(at(0), 2, "b", true)
	b.NodeUp(at(0), 1, "a", true)
	a.NodeUp(at(0), 9, "attacker", false)
	last := bound(at(0).Wall) - 1
	a.Receive(at(0), Message{From: 9, To: 1, HLC: last, Since: last, Updates: []Update{{State: &State{
		ID: "a", Ver: last, Floor: uint64(last), Vote: Vote{Epoch: uint64(last)},
	}}}})
	if a.HLC() < last {
		t.Fatalf("the clock is at %d, not at the bound, %d", a.HLC(), last)
	}
	now := at(0).add(time.Millisecond)
	a.Acquire(now, "a", "", 0)
	for said := true; said; {
		said = false
		now = now.add(time.Millisecond)
		for _, m := range []struct{ from, to *Machine }{{a, b}, {b, a}} {
			if slices.Contains(m.from.Outbox(nil), m.to.cfg.Self) {
				said = true
				m.to.Receive(now, m.from.Message(now, m.to.cfg.Self, 10))
			}
		}
	}
	events := a.Events()
	if len(events) != 1 || events[0].Kind != Granted || events[0].Token <= uint64(last) {
		t.Errorf("the claim has not won: %+v", events)
	}
}

// What was never said cannot have been acknowledged.
func TestAcknowledgementInAdvanceDoesNotCount(t *testing.T) {
	m := New(at(0), Config{Self: 1})
	m.NodeUp(at(0), 2, "", true)
	m.Acquire(at(0), "a", "", 0)
	m.Receive(at(0), stateOf2(func(_ *Message, u *Update) { u.Seen = maxHLC - 1 }))
	m.Message(at(0), 2, 10)
	m.Tick(at(1))
	if msg := m.Message(at(1), 2, 10); len(msg.Updates) != 1 || !msg.Updates[0].WantAck {
		t.Errorf("the State was not sent again: %+v", msg.Updates)
	}
}

// A vote that was not yet given cannot have been given back.
func TestVoteGivenBackInAdvanceIsNotFree(t *testing.T) {
	m := New(at(0), Config{Self: 1})
	m.NodeUp(at(0), 2, "", true)
	claimOf2 := func(ver HLC, seq uint64, stamp HLC) Message {
		return stateOf2(func(_ *Message, u *Update) {
			u.Ver, u.Gave = ver, uint64(maxHLC)
			u.Claims = []ClaimState{{Seq: seq, Stamp: stamp}}
		})
	}
	m.Receive(at(0), claimOf2(8, 1, 10))
	m.Receive(at(0), claimOf2(9, 2, 10))
	m.NodeUp(at(0), 3, "", true)
	older := claimOf2(8, 1, 5)
	older.From = 3
	m.Receive(at(0), older) // better, but the vote for 2's claim is not free
	if v := m.ids["a"].vote; v.Claim.Node != 2 || !v.Recall {
		t.Errorf("vote is %+v, want that for n2/2, recalled", v)
	}
}

// An answer to a ping that was never sent does not count, and does not make
// the real answers look old.
func TestPongInAdvanceDoesNotCount(t *testing.T) {
	m := New(at(0), Config{Self: 1})
	m.NodeUp(at(0), 2, "", true)
	m.Receive(at(0), Message{From: 2, To: 1, Pong: 1 << 60})
	for i := range 2 * silentAfter {
		m.Tick(at(i))
		ping := m.Message(at(i), 2, 10)
		m.Receive(at(i), Message{From: 2, To: 1, Pong: ping.Ping})
	}
	if m.byNode[2].silent() {
		t.Error("node 2 is silent, though it answered every ping")
	}
}

// Who is not a member cannot fill the memory under ever new names.
func TestStrayNodesAreBounded(t *testing.T) {
	m := New(at(0), Config{Self: 1})
	m.NodeUp(at(0), 2, "", true)
	for n := range Node(10 * maxStrays) {
		msg := stateOf2(func(*Message, *Update) {})
		msg.From = n + 10
		m.Receive(at(0), msg)
	}
	if len(m.byNode) != 1+maxStrays {
		t.Errorf("%d nodes are kept, want %d", len(m.byNode), 1+maxStrays)
	}
	for i := range goneTicks + 2 {
		m.Tick(at(i))
	}
	if len(m.byNode) != 1 {
		t.Errorf("%d nodes are kept after %d ticks, want 1", len(m.byNode), goneTicks+2)
	}
}

// A process that crashes and starts anew again and again is another node each
// time, with claims for all its ids.
func TestNodesThatComeAndGoAreBounded(t *testing.T) {
	m := New(at(0), Config{Self: 1})
	for i := range 1000 {
		msg := stateOf2(func(_ *Message, u *Update) { u.Claims = []ClaimState{{Seq: 1, Stamp: 5}} })
		msg.From = Node(i + 2)
		m.NodeUp(at(i), msg.From, "", true)
		m.Receive(at(i), msg)
		m.NodeDown(at(i), msg.From)
		m.Tick(at(i))
	}
	if links := len(m.ids["a"].links); len(m.peers) > 150 || links > 150 {
		t.Errorf("%d nodes and %d of their States are kept, though they come and go once a second", len(m.peers), links)
	}
}

// Claims made at the same instant by nodes whose clocks agree are ordered by
// node, so that all voters see the same order.
func TestClaimsOfOneInstantAreOrderedByNode(t *testing.T) {
	a, b := Claim{Node: 1, Seq: 2, Stamp: 5}, Claim{Node: 2, Seq: 1, Stamp: 5}
	if !a.before(b) || b.before(a) {
		t.Errorf("%v.before(%v) = %v, the reverse %v", a, b, a.before(b), b.before(a))
	}
	c := Claim{Node: 1, Seq: 3, Stamp: 5}
	if !a.before(c) || c.before(a) {
		t.Errorf("%v.before(%v) = %v, the reverse %v", a, c, a.before(c), c.before(a))
	}
}

// A second that ends while thousands of States are on their way does not send
// them again, as long as the peer acknowledges many.
func TestStatesUnderWayAreNotSentAgain(t *testing.T) {
	const ids, batch = 1000, 10
	a, b := New(at(0), Config{Self: 1}), New(at(0), Config{Self: 2})
	a.NodeUp(at(0), 2, "", true)
	b.NodeUp(at(0), 1, "", true)
	for i := range ids {
		a.Acquire(at(0), fmt.Sprint(i), "", 0)
	}
	var flight []Message
	for range ids / batch {
		flight = append(flight, a.Message(at(0), 2, batch))
	}
	for _, msg := range flight[:busyAcks/batch] {
		b.Receive(at(0), msg)
	}
	a.Receive(at(0), b.Message(at(0), 1, busyAcks))
	for len(a.Outbox(nil)) > 0 {
		a.Message(at(0), 2, ids)
	}
	a.Tick(at(1))
	if again := len(a.Message(at(1), 2, ids).Updates); again != 0 {
		t.Errorf("%d States were sent again", again)
	}
	a.Tick(at(2))
	if again := len(a.Message(at(2), 2, ids).Updates); again != ids {
		t.Errorf("%d States were sent again after a second without any acknowledgement, want %d", again, ids)
	}
}
