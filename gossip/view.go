package gossip

import (
	"slices"
	"time"

	"github.com/hashicorp/memberlist"

	"highlander/internal/claims"
)

// node is another node that memberlist knows.
type node struct {
	id       claims.Node
	name     string
	addr     string
	list     memberlist.Node
	observer bool
	phase    nodePhase
	asked    uint64 // nodeDeparted: number of the first question since

	// Of the sender; out and list are all that its goroutine uses.
	out            chan outgoing
	unsent         int  // in out, or being sent
	busy           bool // a claims message is among them
	failed         bool // the last one did not go out: wait for the tick
	unreached      bool // the last stream failed
	unanswered     bool // there was no answer to the last ping yet
	pingedOnStream bool // its last ping is to be answered on a stream
	packets        packetRecord
}

// nodePhase is what a node is between joining memberlist's view and leaving it.
type nodePhase int

const (
	nodeInView   nodePhase = iota
	nodeDeparted           // somebody says that its process is gone; it is asked
	nodeLeaving            // it has said goodbye
)

func (a *agent) nodeJoined(now time.Time, list memberlist.Node) {
	_, incarnation, err := splitName(list.Name)
	if err != nil || a.nodes[claims.Node(incarnation)] != nil {
		return
	}
	n := &node{
		id: claims.Node(incarnation), name: list.Name, addr: list.Address(), list: list,
		observer: len(list.Meta) == 1 && list.Meta[0] == observerMeta,
		out:      make(chan outgoing, maxTold+1), // and one claims message
	}
	a.nodes[n.id] = n
	a.senders.Go(func() { a.send(n) })
	a.machine.NodeUp(now, n.id, !n.observer)
	a.log.Info("node joined", "peer", n.name, "addr", n.addr)
	a.viewChanged()
}

// nodeLeft: memberlist has given a node up, or has heard that it left.
func (a *agent) nodeLeft(now time.Time, name string) {
	n := a.find(name)
	if n == nil {
		return
	}
	delete(a.nodes, n.id)
	close(n.out)
	a.machine.NodeDown(now, n.id)
	if n.phase != nodeLeaving {
		a.c.joiner.remember(n.addr)
	}
	if n.phase == nodeInView {
		a.log.Warn("node does not answer and was given up", "peer", n.name)
	}
	a.viewChanged()
}

// saidGoodbye takes a node out of the view that will be gone in a moment.
func (a *agent) saidGoodbye(now time.Time, n *node) {
	if n.phase == nodeLeaving {
		return
	}
	a.log.Info("node left", "peer", n.name)
	n.phase = nodeLeaving
	a.machine.NodeDown(now, n.id)
	a.viewChanged()
}

// processGone is the tripwire's word that the process of a node has ended. It
// is told to all, as not everybody watches that node.
func (a *agent) processGone(name string, proof error) {
	a.do(func(now time.Time) {
		n := a.find(name)
		if n == nil || n.phase != nodeInView {
			return
		}
		a.log.Info("the process of a node is gone", "peer", name, "proof", proof)
		for _, other := range a.nodes {
			if other != n {
				a.tell(other, word{kind: wordDeparted, about: n.id})
			}
		}
		a.depart(now, n)
	})
}

// depart takes a node out of the view before memberlist does. The proof may
// mislead, as when a firewall refuses connections: so the node is asked, now
// and until memberlist gives it up, and a word from itself takes it back.
func (a *agent) depart(now time.Time, n *node) {
	if n == nil || n.phase != nodeInView {
		return
	}
	n.phase = nodeDeparted
	a.machine.NodeDown(now, n.id)
	n.asked = a.question(n)
	a.viewChanged()
}

func (a *agent) question(n *node) (number uint64) { return a.tell(n, word{kind: wordQuestion}) }

// answered takes a departure back, if the question was put after it.
func (a *agent) answered(now time.Time, n *node, number uint64) {
	if n.phase != nodeDeparted || number < n.asked {
		return
	}
	n.phase = nodeInView
	a.log.Warn("a node that was taken for gone is alive", "peer", n.name)
	a.machine.NodeUp(now, n.id, !n.observer)
	a.viewChanged()
}

func (a *agent) find(name string) *node {
	_, incarnation, err := splitName(name)
	if n := a.nodes[claims.Node(incarnation)]; err == nil && n != nil && n.name == name {
		return n
	}
	return nil
}

// viewChanged publishes the members and sets the tripwires.
func (a *agent) viewChanged() {
	members := []Member{a.selfMember()}
	var names []string
	var gone []claims.Node
	for _, n := range a.nodes {
		if n.phase == nodeInView {
			members = append(members, Member{Name: n.name, Addr: n.addr, Observer: n.observer})
			names = append(names, n.name)
		} else {
			gone = append(gone, n.id)
		}
	}
	a.c.traps.watch(a.nextInRing(names))
	a.mu.Lock()
	defer a.mu.Unlock()
	a.members, a.gone = members, gone
	a.announce()
}

// announce wakes those that wait for membership to change; a.mu is held.
func (a *agent) announce() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// nextInRing returns the addresses of the few nodes that come after this one in
// the order of the names, going round.
func (a *agent) nextInRing(names []string) map[string]string {
	slices.Sort(names)
	after, _ := slices.BinarySearch(names, a.c.name)
	targets := map[string]string{}
	for i := range min(tripwireReach, len(names)) {
		n := a.find(names[(after+i)%len(names)])
		targets[n.name] = n.addr
	}
	return targets
}

func (a *agent) selfMember() Member {
	return Member{Name: a.c.name, Addr: a.c.addr, Observer: a.c.cfg.Observer, Self: true}
}

// membership returns the members, and a channel that is closed when they
// change.
func (a *agent) membership() ([]Member, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.members, a.changed
}

// voters returns how many nodes there are that vote, counting this one, and a
// channel that is closed when that may have changed.
func (a *agent) voters() (int, <-chan struct{}) {
	members, changed := a.membership()
	count := 0
	for _, m := range members {
		if m.Self || !m.Observer {
			count++
		}
	}
	return count, changed
}

// hasMet says whether this node has exchanged clocks with another one.
func (a *agent) hasMet() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.met
}
