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

	maxShort = 8 // short messages that wait for a node's sender, at most

	maxUnconfirmed = 64 // States per node that were sent in packets; beyond it, streams
)

// packetRecord is what was sent to a node in packets and not yet looked after.
type packetRecord struct {
	sent   []sentState
	stream bool // a packet was lost: the next message takes a stream
}

type sentState struct {
	id  string
	ver claims.HLC
}

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
	n.packets.stream, n.pingedOnStream, n.beats.asksOnStream = false, false, false
	n.busy = true
	n.unsent++
	n.out <- outgoing{msg: msg}
}

// needsStream says whether msg may not be sent as a packet. A ping or an answer
// to one takes the way that States take when it is in doubt: so a node that
// packets reach, but streams do not, becomes silent.
func (n *node) needsStream(msg claims.Message) bool {
	if n.packets.stream || n.beats.asksOnStream || len(n.packets.sent)+len(msg.Updates) > maxUnconfirmed {
		return true
	}
	if msg.Ping == 0 && msg.Pong == 0 {
		return false
	}
	doubt := n.unreached || msg.Ping != 0 && n.unanswered || msg.Pong != 0 && n.pingedOnStream ||
		slices.ContainsFunc(msg.Updates, func(u claims.Update) bool { return u.WantAck })
	n.unanswered = n.unanswered || msg.Ping != 0
	return doubt
}

// receive takes a claims message.
func (a *agent) receive(now claims.Instant, msg claims.Message, stream bool) {
	if n := a.nodes[msg.From]; n != nil && msg.To == a.self {
		n.unanswered = n.unanswered && msg.Pong == 0
		n.pingedOnStream = n.pingedOnStream || stream && msg.Ping != 0
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
				n.packets.stream = true
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

// sendShort has something short sent on a stream, unless too much of that kind
// waits already.
func (a *agent) sendShort(n *node, b []byte) {
	if n.unsent < maxShort {
		n.unsent++
		n.out <- outgoing{short: b}
	}
}

// send is the sender of one node's streams: one message after the other, so
// that what is said meanwhile goes out together with the next.
func (a *agent) send(n *node) {
	var buf []byte
	to := n.list
	for o := range n.out {
		var err error
		if o.short != nil {
			err = a.c.list.SendReliable(&to, o.short)
		} else {
			buf, err = a.sendClaims(&to, buf, o.msg)
		}
		if err != nil {
			a.log.Debug("could not send", "peer", to.Name, "error", err)
		}
		a.do(func(claims.Instant) { a.sent(n, o, err) })
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

func (a *agent) sent(n *node, o outgoing, err error) {
	n.unsent--
	n.unreached = err != nil
	if o.short == nil {
		n.busy = false
		n.failed = err != nil // the States in it are sent again, as they are not acknowledged
	}
}

// allSaid says whether nothing is waiting to be sent or being sent.
func (a *agent) allSaid() bool {
	for _, n := range a.nodes {
		if n.unsent > 0 {
			return false
		}
	}
	return len(a.machine.Outbox(nil)) == 0
}
