package gossip

import (
	"slices"

	"github.com/hashicorp/memberlist"

	"highlander/internal/claims"
)

// In quorum mode nodes send each other beats and answer them (rule Q2). They go
// in packets of their own: what the States of ten thousand ids take on a stream
// must not delay them. A beat that is lost is made up for by the next one, a
// quarter of the TTL later. That one goes on a stream as well, and so do all
// until a packet is answered: packets may not get through at all, be it that
// somebody floods the port or that a firewall drops them. What came on a stream
// is answered on one.

// leftTicks is how long the address of a node that has left is kept: it may not
// know that it has, and its beats are answered.
const leftTicks = 120

// leftNode is a node that is not on memberlist's list any more.
type leftNode struct {
	list  memberlist.Node
	ticks int // since it was heard last
}

// sendBeats sends a node the beat and the answer that are due.
func (a *agent) sendBeats(now claims.Instant, id claims.Node) {
	to := a.address(id)
	if to == nil {
		return
	}
	msg := a.machine.Message(now, id, 0)
	beat, back := msg.Beat.K != 0, msg.Back.Stamp != 0
	if !beat && !back {
		return
	}
	a.packet = claims.AppendMessage(append(a.packet[:0], kindPacket), msg)
	a.c.list.SendBestEffort(to, a.packet)
	n := a.nodes[id]
	if n == nil {
		return
	}
	if beat {
		n.beats.phase = min(n.beats.phase+1, beatsDoubted)
	}
	if beat && n.beats.phase == beatsDoubted || back && n.beats.came == byStream {
		n.stream.sendShort(claims.AppendMessage([]byte{kindClaims}, msg))
	}
	if back {
		n.beats.came = byPacket
	}
}

// noteBeats notes which way a message of a node came.
func (a *agent) noteBeats(msg claims.Message, stream bool) {
	if n := a.nodes[msg.From]; n != nil {
		if back := msg.Back.Stamp != 0; back && (!stream || n.beats.phase == beatAwaited) {
			n.beats.phase = beatsArrive
		}
		if stream && msg.Beat.K != 0 {
			n.beats.came = byStream
		}
		if stream && slices.ContainsFunc(msg.Updates, func(u claims.Update) bool { return u.WantAck }) {
			n.packets.next = byStream
		}
	}
	if left := a.left[msg.From]; left != nil {
		left.ticks = 0
	}
}

// address returns where a node is, or was when it left; nil if that is not known.
func (a *agent) address(id claims.Node) *memberlist.Node {
	if n := a.nodes[id]; n != nil {
		return &n.list
	}
	if left := a.left[id]; left != nil {
		return &left.list
	}
	return nil
}

// tickLeft forgets nodes that have left and say nothing any more.
func (a *agent) tickLeft() {
	for id, left := range a.left {
		if left.ticks++; left.ticks > leftTicks {
			delete(a.left, id)
		}
	}
}
