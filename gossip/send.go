package gossip

import (
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

// packetRecord is what was sent to a node in packets and not yet looked after.
type packetRecord struct {
	sent   []sentState
	stream bool // a packet was lost: the next message takes a stream
}

type sentState struct {
	id  string
	ver claims.HLC
}

// dispatch sends a message. Pings take a stream, so that a node that streams do
// not reach becomes silent.
func (a *agent) dispatch(n *node, msg claims.Message) {
	if msg.Ping == 0 && msg.Pong == 0 && !n.packets.stream && len(n.packets.sent)+len(msg.Updates) <= maxUnconfirmed {
		a.packet = claims.AppendMessage(append(a.packet[:0], kindPacket), msg)
		if len(a.packet) <= maxPacket && a.c.list.SendBestEffort(&n.list, a.packet) == nil {
			a.recordPacket(n, msg)
			return
		}
	}
	n.packets.stream = false
	n.busy = true
	n.out <- outgoing{msg: msg}
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

// receivePacket takes a message from memberlist's packet handler, which must
// not be blocked: it is dropped if the agent is that far behind.
func (a *agent) receivePacket(b []byte) {
	msg, err := claims.ParseMessage(b)
	if err != nil {
		a.c.dropped.count(err.Error())
		return
	}
	a.mu.Lock()
	full := len(a.posted) >= maxPosted
	a.mu.Unlock()
	if full {
		a.c.dropped.count("too many packets")
		return
	}
	a.post(func(now time.Time) { a.machine.Receive(now, msg) })
}

// tell sends a short message. If the sender is that far behind, it is left
// out: questions are repeated, and a departure is noticed by others as well.
func (a *agent) tell(n *node, kind byte, name string) {
	if len(n.out) < maxTold {
		n.out <- outgoing{raw: append([]byte{kind}, name...)}
	}
}

// send is the sender of one node's streams: one message after the other, so
// that what is said meanwhile goes out together with the next.
func (a *agent) send(to memberlist.Node, id claims.Node, out <-chan outgoing) {
	var buf []byte
	for o := range out {
		if o.raw != nil {
			if err := a.c.list.SendReliable(&to, o.raw); err != nil {
				a.log.Debug("could not send", "peer", to.Name, "error", err)
			}
			continue
		}
		buf = claims.AppendMessage(append(buf[:0], kindClaims), o.msg)
		err := a.c.list.SendReliable(&to, buf)
		a.do(func(time.Time) { a.sent(id, err) })
	}
}

func (a *agent) sent(id claims.Node, err error) {
	n := a.nodes[id]
	if n == nil {
		return
	}
	n.busy = false
	if err != nil {
		n.failed = true // the States in it are sent again, as they are not acknowledged
		a.log.Debug("could not send", "peer", n.name, "error", err)
	}
}

// allSaid says whether nothing is waiting to be sent or being sent.
func (a *agent) allSaid() bool {
	for _, n := range a.nodes {
		if n.busy || len(n.out) > 0 {
			return false
		}
	}
	return len(a.machine.Outbox(nil)) == 0
}
