package gossip

import (
	"slices"
	"time"

	"github.com/hashicorp/memberlist"

	"highlander/internal/claims"
)

const (
	// A claims message that fits goes out as a packet, which spares a
	// connection and most of the time of a take-over.
	maxPacket = 1200

	// What a packet said is repeated on a stream if it was not acknowledged
	// within this time.
	confirmWithin = 50 * time.Millisecond

	maxUnconfirmed = 64 // States per node that were sent in packets; beyond it, streams
)

// dispatch sends a message, if there is something in it.
func (a *agent) dispatch(n *node, msg claims.Message) {
	if len(msg.Updates) == 0 && msg.Ping == 0 && msg.Pong == 0 {
		return // but for beats, which have gone
	}
	if !n.needsStream(msg) {
		a.packet = claims.AppendMessage(append(a.packet[:0], kindPacket), msg)
		if len(a.packet) <= maxPacket && a.c.list.SendBestEffort(&n.list, a.packet) == nil {
			a.recordPacket(n, msg)
			return
		}
	}
	n.packets.next, n.pings.came = byPacket, byPacket
	n.stream.send(msg)
}

// needsStream says whether msg may not be sent as a packet. A ping or an answer
// to one takes the way that States take when it is in doubt: so a node that
// packets reach, but streams do not, becomes silent.
func (n *node) needsStream(msg claims.Message) bool {
	if n.packets.next == byStream || len(n.packets.sent)+len(msg.Updates) > maxUnconfirmed {
		return true
	}
	if msg.Ping == 0 && msg.Pong == 0 {
		return false
	}
	doubt := n.stream.unreached || msg.Ping != 0 && n.pings.awaited || msg.Pong != 0 && n.pings.came == byStream ||
		slices.ContainsFunc(msg.Updates, func(u claims.Update) bool { return u.WantAck })
	n.pings.awaited = n.pings.awaited || msg.Ping != 0
	return doubt
}

// receive takes a claims message.
func (a *agent) receive(now claims.Instant, msg claims.Message, stream bool) {
	if n := a.nodes[msg.From]; n != nil && msg.To == a.self {
		n.pings.awaited = n.pings.awaited && msg.Pong == 0
		if stream && msg.Ping != 0 {
			n.pings.came = byStream
		}
	}
	if a.inQuorumMode() && msg.To == a.self {
		a.noteBeats(msg, stream)
	}
	a.machine.Receive(now, msg)
}

func (a *agent) recordPacket(n *node, msg claims.Message) {
	for _, u := range msg.Updates {
		if u.WantAck {
			n.packets.sent = append(n.packets.sent, sentState{u.ID, u.Ver})
		}
	}
	if len(n.packets.sent) > 0 && !a.confirming {
		a.confirming = true
		a.confirm.Reset(confirmWithin)
	}
}

// repeatLost looks after the packets that were sent.
func (a *agent) repeatLost() {
	a.confirming = false
	for _, n := range a.nodes {
		for _, s := range n.packets.sent {
			if a.machine.Repeat(n.id, s.id, s.ver) {
				n.packets.next = byStream
			}
		}
		n.packets.sent = n.packets.sent[:0]
	}
}

// outgoing is what a sender sends: a claims message, or something short that is
// encoded already, such as a word.
type outgoing struct {
	msg   claims.Message
	short []byte
}

// send is the sender of one node's streams: one message after the other, so
// that what is said meanwhile goes out together with the next.
func (a *agent) send(n *node) {
	var buf []byte
	to := n.list
	for o := range n.stream.out {
		var err error
		if o.short != nil {
			err = a.c.list.SendReliable(&to, o.short)
		} else {
			buf, err = a.sendClaims(&to, buf, o.msg)
		}
		if err != nil {
			a.log.Debug("could not send", "peer", to.Name, "error", err)
		}
		a.do(func(claims.Instant) { n.stream.sent(o, err) })
	}
}

// sendClaims sends msg in messages that the other side does not refuse for
// their length.
func (a *agent) sendClaims(to *memberlist.Node, buf []byte, msg claims.Message) ([]byte, error) {
	buf = claims.AppendMessage(append(buf[:0], kindClaims), msg)
	if len(buf) <= maxStream/4 || len(msg.Updates) < 2 {
		return buf, a.c.list.SendReliable(to, buf)
	}
	first, second := msg, msg
	half := len(msg.Updates) / 2
	first.Updates, second.Updates = msg.Updates[:half], msg.Updates[half:]
	buf, err := a.sendClaims(to, buf, first)
	if err == nil {
		buf, err = a.sendClaims(to, buf, second)
	}
	return buf, err
}

// allSaid says whether nothing is waiting to be sent or being sent.
func (a *agent) allSaid() bool {
	for _, n := range a.nodes {
		if n.stream.waiting > 0 {
			return false
		}
	}
	return len(a.machine.Outbox(nil)) == 0
}
