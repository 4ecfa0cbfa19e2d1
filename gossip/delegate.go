package gossip

import (
	"encoding/binary"
	"fmt"

	"github.com/hashicorp/memberlist"

	"highlander/internal/claims"
	"highlander/internal/nodename"
)

// What memberlist tells the agent. Its callbacks run under its locks or in the
// way of its packets, so they post what they bring; only those that run on a
// stream's own goroutine wait for the agent.

// The first byte of a claims.Message; for other messages see word.
const (
	kindClaims = 'c' // on a stream
	kindPacket = 'p' // in a packet
)

// NodeMeta implements memberlist.Delegate.
func (a *agent) NodeMeta(int) []byte { return a.c.meta.append(nil) }

// GetBroadcasts implements memberlist.Delegate.
func (a *agent) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate: the clocks are exchanged when a
// node joins (rule 5 of the claims).
func (a *agent) LocalState(bool) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	b := binary.BigEndian.AppendUint64(nil, uint64(a.self))
	return binary.BigEndian.AppendUint64(b, uint64(a.hlc))
}

// MergeRemoteState implements memberlist.Delegate. The members that came with
// the clock have been posted before.
func (a *agent) MergeRemoteState(b []byte, _ bool) {
	if len(b) != 16 {
		a.c.dropped.count(fmt.Sprintf("%d bytes of state with a list of members, not 16", len(b)))
		return
	}
	from, hlc := claims.Node(binary.BigEndian.Uint64(b)), claims.HLC(binary.BigEndian.Uint64(b[8:]))
	if from == a.self {
		return // reached through an address of its own
	}
	a.post(func(now claims.Instant) {
		a.machine.MergeHLC(now, hlc)
		a.mu.Lock()
		defer a.mu.Unlock()
		if !a.met {
			a.met = true
			a.announce()
		}
	})
}

// NotifyAlive implements memberlist.AliveDelegate: it refuses strangers.
func (a *agent) NotifyAlive(n *memberlist.Node) error {
	meta, err := a.checkNode(n)
	if err != nil {
		a.c.dropped.count(err.Error())
		return err
	}
	if err = a.c.meta.agree(n.Name, meta); err != nil {
		voter, _, _ := nodename.Split(n.Name)
		a.c.dropped.refused(refusal{voter, meta.rules}, err)
	}
	return err
}

func (a *agent) checkNode(n *memberlist.Node) (nodeMeta, error) {
	_, incarnation, err := nodename.Split(n.Name)
	switch {
	case err != nil:
		return nodeMeta{}, err
	case incarnation == 0 || claims.Node(incarnation) == a.self && n.Name != a.c.name:
		return nodeMeta{}, fmt.Errorf("node name %q: the incarnation is not its own", n.Name)
	case len(n.Addr) != 4 && len(n.Addr) != 16 || n.Addr.IsUnspecified() || n.Port == 0:
		return nodeMeta{}, fmt.Errorf("node %q: nobody can be reached at %s, port %d", n.Name, n.Addr, n.Port)
	}
	meta, err := parseMeta(n.Meta)
	if err != nil {
		return meta, fmt.Errorf("node %q: %w", n.Name, err)
	}
	return meta, nil
}

// NotifyJoin implements memberlist.EventDelegate.
func (a *agent) NotifyJoin(n *memberlist.Node) {
	if n.Name == a.c.name {
		return
	}
	copied := *n
	a.post(func(now claims.Instant) { a.nodeJoined(now, copied) })
}

// NotifyLeave implements memberlist.EventDelegate.
func (a *agent) NotifyLeave(n *memberlist.Node) {
	if n.Name == a.c.name {
		return
	}
	name := n.Name
	a.post(func(now claims.Instant) { a.nodeLeft(now, name) })
}

// NotifyUpdate implements memberlist.EventDelegate: the meta of a node never
// changes.
func (a *agent) NotifyUpdate(*memberlist.Node) {}

// NotifyMsg implements memberlist.Delegate.
func (a *agent) NotifyMsg(b []byte) {
	if len(b) == 0 {
		a.c.dropped.count("empty message")
		return
	}
	switch b[0] {
	case kindClaims, kindPacket:
		msg, err := claims.ParseMessage(b[1:])
		if err != nil {
			a.c.dropped.count(err.Error())
			return
		}
		if b[0] == kindClaims {
			a.do(func(now claims.Instant) { a.receive(now, msg, true) })
		} else {
			a.postPacket(func(now claims.Instant) { a.receive(now, msg, false) })
		}
	default:
		w, err := parseWord(b)
		if err != nil {
			a.c.dropped.count(err.Error())
			return
		}
		a.postPacket(func(now claims.Instant) { a.hear(now, w) })
	}
}

// postPacket posts what came in a packet, unless the agent is that far behind.
func (a *agent) postPacket(input func(now claims.Instant)) {
	a.mu.Lock()
	full := len(a.posted) >= maxPosted
	a.mu.Unlock()
	if full {
		a.c.dropped.count("too many packets")
		return
	}
	a.post(input)
}
