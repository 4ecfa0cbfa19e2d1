package claims

import (
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
		z := &fuzzed{t: t, script: script, now: simStart, m: New(simStart, Config{Self: 1})}
		z.m.idleTicks, z.m.goneTicks = 2, 4
		for len(z.script) > 0 {
			z.step()
			z.check()
		}
	})
}

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
	opCount
)

// fuzzed is a machine and the bytes that say what to do with it.
type fuzzed struct {
	t      *testing.T
	script []byte
	now    Instant
	m      *Machine
	mine   []Claim
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
		z.m.NodeUp(z.now, z.peer(), "", z.next(4) != 0)
	case opDown:
		z.m.NodeDown(z.now, z.peer())
	case opTick:
		z.m.Tick(z.now)
	case opAcquire:
		z.mine = append(z.mine, z.m.Acquire(z.now, z.id(), "", 0))
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
	}
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
		if holders > 1 {
			z.t.Fatalf("%s has %d holders here", id, holders)
		}
	}
	z.checkOutboxes()
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
