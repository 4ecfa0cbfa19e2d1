package claims

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// FuzzMachine gives a machine any sequence of inputs: messages of peers that may
// say anything, with small numbers, so that they mean something to it, and
// what the program itself can do. It must not panic, it must come to an end
// after each input, and it must stay in order.
func FuzzMachine(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{opUp, 0, opAcquire, 0, opReceive, 0, 1, 0, 0, 1, 0, 5, 1, 1, 3, opTick, opFetch})
	f.Add([]byte{opUp, 0, 1, 1, opPass, 150, opAdvance, opAcquire, 0, 0, opFetch, opReceive, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 1, 1, opFetch, opAdvance, opDead, 0})
	f.Add([]byte{opUp, 0, opUp, 1, opAcquire, 0, opFetch, opReceive, 0, 0, 0, 0, 0, 0, 9, 1, 0, 0, opReceive, 1, 2, 1, 0, 0, 0, 9, 1, 0, 0, opTick, opFetch, opRelease})
	rng := rand.New(rand.NewPCG(1, 0))
	for range 300 {
		script := make([]byte, 400)
		for i := range script {
			script[i] = byte(rng.Uint32())
		}
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		const most = 1000 // a longer script takes long, but shows nothing new
		script = script[:min(most, len(script))]
		for _, cfg := range []Config{
			{Self: 1},
			{Self: 1, Name: "v0", Quorum: 2, Voters: 3, TTL: fuzzTTL},
			{Self: 1, Name: "v0", Quorum: 1, Voters: 1, TTL: fuzzTTL},
			{Self: 1, Observer: true, Quorum: 2, Voters: 3, TTL: fuzzTTL},
		} {
			z := &fuzzed{t: t, script: script, now: simStart, m: New(simStart, cfg), ends: map[Claim]time.Duration{}}
			z.m.idleTicks, z.m.goneTicks = 2, 4
			for len(z.script) > 0 {
				z.step()
				z.check()
			}
		}
	})
}

const fuzzTTL = 100 * ms

const (
	opUp byte = iota
	opDown
	opTick
	opAcquire
	opRelease
	opReceive
	opFetch
	opRepeat
	opRaw
	opAdvance
	opPass
	opDead
	opGoodbye
	opCount
)

// fuzzed is a machine and the bytes that say what to do with it.
type fuzzed struct {
	t      *testing.T
	script []byte
	now    Instant
	m      *Machine
	mine   []Claim
	ends   map[Claim]time.Duration // of leases, as last told
}

// next returns the next byte of the script below n.
func (z *fuzzed) next(n byte) byte {
	if len(z.script) == 0 {
		return 0
	}
	b := z.script[0] % n
	z.script = z.script[1:]
	return b
}

func (z *fuzzed) id() string { return string('a' + rune(z.next(2))) }
func (z *fuzzed) peer() Node { return Node(2 + z.next(4)) }

func (z *fuzzed) step() {
	z.now = z.now.add(time.Millisecond)
	switch z.next(opCount) {
	case opUp:
		z.m.NodeUp(z.now, z.peer(), fmt.Sprint("v", z.next(4)), z.next(4) != 0)
	case opDown:
		z.m.NodeDown(z.now, z.peer())
	case opTick:
		z.m.Tick(z.now)
	case opAcquire:
		if !z.m.cfg.Observer {
			z.mine = append(z.mine, z.m.Acquire(z.now, z.id(), "", time.Duration(z.next(40))*ms))
		}
	case opRelease:
		if len(z.mine) > 0 {
			z.m.Release(z.now, z.id(), z.mine[int(z.next(8))%len(z.mine)])
		}
	case opReceive:
		z.m.Receive(z.now, z.message())
	case opFetch:
		for _, n := range z.m.Outbox(nil) {
			z.sent(z.m.Message(z.now, n, 1+int(z.next(3))))
		}
	case opRepeat:
		z.m.Repeat(z.peer(), z.id(), z.version())
	case opRaw:
		n := min(int(z.next(255)), len(z.script))
		if msg, err := ParseMessage(z.script[:n]); err == nil {
			z.m.Receive(z.now, msg)
		}
		z.script = z.script[n:]
	case opAdvance:
		z.advance()
	case opPass:
		z.now = z.now.add(time.Duration(z.next(200)) * ms)
	case opDead:
		z.m.Dead(z.now, z.peer())
	case opGoodbye:
		z.m.Goodbye(z.now, z.peer())
	}
}

// advance waits until there is something to look at, and checks that it is done
// with then: a program that calls Advance when it is told must come to rest.
func (z *fuzzed) advance() {
	at, ok := z.m.NextAdvance()
	if !ok {
		return
	}
	z.now = z.now.add(max(0, at-z.now.Up))
	z.m.Advance(z.now)
	if at, ok := z.m.NextAdvance(); ok && at <= z.now.Up {
		z.t.Fatalf("Advance at %v is due at %v again", z.now.Up, at)
	}
}

// moment is near the machine's clock, as true ones are, or anything.
func (z *fuzzed) moment() time.Duration {
	switch z.next(3) {
	case 0:
		return time.Duration(z.next(8))
	case 1:
		return z.now.Up
	}
	return z.now.Up + (time.Duration(z.next(255))-127)*ms
}

// version is near the machine's clock, as true ones are, or anything.
func (z *fuzzed) version() HLC {
	switch z.next(3) {
	case 0:
		return HLC(z.next(8))
	case 1:
		return z.m.HLC() + HLC(z.next(8))
	}
	return z.m.HLC() - HLC(z.next(8))
}

func (z *fuzzed) claim() Claim {
	if len(z.mine) > 0 && z.next(2) == 0 {
		return z.mine[int(z.next(8))%len(z.mine)]
	}
	return Claim{Node: Node(z.next(6)), Seq: uint64(z.next(3)), Stamp: HLC(z.next(8))}
}

// message is well-formed, but need not be true.
func (z *fuzzed) message() Message {
	msg := Message{From: z.peer(), To: 1, HLC: HLC(z.next(8)), Since: HLC(z.next(3)), Ping: uint64(z.next(2)), Pong: uint64(z.next(4))}
	if z.next(2) == 0 {
		msg.Bind = uint64(z.next(4))
		msg.Beat = Beat{K: z.moment(), Echo: z.moment()}
		msg.Back = Back{K: z.moment(), Stamp: z.moment()}
	}
	for range z.next(3) {
		s := &State{ID: z.id(), Ver: z.version(), Floor: uint64(z.version())}
		s.Vote = Vote{Epoch: uint64(z.version()), Claim: z.claim(), Recall: z.next(2) == 0}
		for range z.next(3) {
			c := ClaimState{Seq: uint64(z.next(3)), Stamp: HLC(z.next(8))}
			if z.next(2) == 0 {
				c.Token = uint64(z.version())
				c.Won = c.Token - uint64(z.next(2))
				c.Tallies = []Tally{{Rival: z.claim(), Votes: int(z.next(4))}}
			}
			s.Claims = append(s.Claims, c)
		}
		msg.Updates = append(msg.Updates, Update{State: s, Seen: z.version(), Gave: uint64(z.version()), WantAck: z.next(2) == 0})
	}
	return msg
}

// sent checks that what the machine says can be read.
func (z *fuzzed) sent(msg Message) {
	if _, err := ParseMessage(AppendMessage(nil, msg)); err != nil {
		z.t.Fatalf("%+v: %v", msg, err)
	}
}

// check looks for what must be true after every input.
func (z *fuzzed) check() {
	for _, e := range z.m.Events() {
		if e.Claim.Node != 1 || e.Kind == Granted && e.Token == 0 {
			z.t.Fatalf("event %+v", e)
		}
	}
	if len(z.m.touched) > 0 {
		z.t.Fatalf("%d ids are not settled", len(z.m.touched))
	}
	for id, r := range z.m.ids {
		if r.changed {
			z.t.Fatalf("a change of %s is not published", id)
		}
		holders := 0
		for _, o := range r.own {
			if o.token > r.floor {
				z.t.Fatalf("%v has token %d above the floor %d", o.Claim, o.token, r.floor)
			}
			if o.token != 0 {
				holders++
			}
		}
		if holders > 1 && z.m.cfg.Quorum == 0 { // voters that lie may make two
			z.t.Fatalf("%s has %d holders here", id, holders)
		}
	}
	z.checkOutboxes()
	z.checkQuorum()
}

// checkQuorum: leases do not end earlier than was told, and nothing is kept of
// claims that are no more.
func (z *fuzzed) checkQuorum() {
	q, ok := z.m.mode.(*quorum)
	if !ok {
		return
	}
	for c := range q.claims {
		end := z.m.Expires(c)
		if end < z.ends[c] {
			z.t.Fatalf("%v lasts until %v, after %v was told", c, end, z.ends[c])
		}
		z.ends[c] = end
		if end != 0 && end <= q.now {
			z.t.Fatalf("%v has run out at %v, it is %v", c, end, q.now)
		}
	}
	own := 0
	for _, r := range z.m.ids {
		own += len(r.own)
	}
	if len(q.claims) != own || len(q.winners) > len(z.mine) || len(q.awaiting) > len(z.mine) {
		z.t.Fatalf("%d claims of %d, %d winners and %d ids that wait are kept", len(q.claims), own, len(q.winners), len(q.awaiting))
	}
}

// checkOutboxes: a link says send exactly if the record is in that outbox, and
// only nodes in view have one.
func (z *fuzzed) checkOutboxes() {
	for _, p := range z.m.peers {
		if p == nil {
			continue
		}
		due := 0
		for _, r := range z.m.ids {
			if p.index < len(r.links) && r.links[p.index].send {
				due++
			}
		}
		if due != len(p.outbox) || due > 0 && !p.inView {
			z.t.Fatalf("node %d: %d ids are due, %d in the outbox, in view %v", p.node, due, len(p.outbox), p.inView)
		}
	}
}
