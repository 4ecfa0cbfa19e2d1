package gossip

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"

	"highlander/internal/claims"
	"highlander/internal/nodename"
)

// node is another node that memberlist knows.
type node struct {
	id      claims.Node
	name    string
	voter   string // name without the incarnation: voters are counted by it
	addr    string
	list    memberlist.Node
	meta    nodeMeta
	phase   nodePhase
	asked   uint64 // nodeDeparted: number of the first question since
	new     int    // ticks for which it is told who is gone
	doubts  uint64 // nodeDoubted: number of the doubt
	doubted int    // nodeDoubted: ticks

	// How messages get there, see route.go.
	stream  stream
	packets packets
	pings   pings
	beats   beats
}

// nodePhase is how this node takes another one. memberlist has all of them on
// its list, but for those in doubt.
type nodePhase int

const (
	nodeInView   nodePhase = iota
	nodeDoubted            // in view, but memberlist has given it up, or has heard that somebody did; it is asked
	nodeDeparted           // out of view, as somebody says that its process is gone; it is asked
	nodeLeaving            // out of view, as it has said goodbye
	nodeDead               // out of view for good, by its death certificate
)

const (
	doubtTimeout  = 300 * time.Millisecond // for a node in doubt to answer
	testifyWithin = 250 * time.Millisecond // for a guard to end what it guards, and to say so
	maxDoubtTicks = 3                      // for memberlist to take one back that has answered
	newTicks      = 3
)

func (n *node) inView() bool { return n.phase == nodeInView || n.phase == nodeDoubted }

func (a *agent) nodeJoined(now claims.Instant, list memberlist.Node) {
	voter, incarnation, err := nodename.Split(list.Name)
	meta, metaErr := parseMeta(list.Meta)
	if err != nil || metaErr != nil { // NotifyAlive lets none of these pass
		return
	}
	if n := a.nodes[claims.Node(incarnation)]; n != nil {
		if n.name == list.Name && n.phase == nodeDoubted {
			n.phase = nodeInView
		}
		return
	}
	if a.meet(claims.Node(incarnation), list.Name, meta.certificate).dead {
		return // memberlist has not noticed yet, or was told by somebody who has not
	}
	n := &node{
		id: claims.Node(incarnation), name: list.Name, voter: voter, addr: list.Address(), list: list, new: newTicks,
		meta:   meta,
		stream: newStream(),
	}
	a.nodes[n.id] = n
	delete(a.left, n.id)
	a.senders.Go(func() { a.send(n) })
	a.machine.NodeUp(now, n.id, n.voter, !n.meta.observer)
	a.news(n, slog.LevelInfo, "node joined", "addr", n.addr)
	a.tellGone(n)
	a.viewChanged()
}

// tellGone tells a new node who is gone: it has them in the list that it got
// from memberlist, and would wait for their votes until the failure detector
// finds out. It may not know this node yet, so it is told again.
func (a *agent) tellGone(n *node) {
	n.new--
	for _, other := range a.nodes {
		if (other.phase == nodeDeparted || other.phase == nodeDead) && other != n {
			a.tell(n, word{kind: wordDeparted, about: other.id})
		}
	}
}

// nodeLeft: memberlist has a node no longer on its list. Of those in view it may
// have been misled: one sick node, or a word that a netsplit has held up, takes
// healthy ones from the lists of all. So the node has a last chance to answer.
func (a *agent) nodeLeft(now claims.Instant, name string) {
	n := a.find(name)
	if n == nil {
		return
	}
	if n.phase != nodeInView {
		a.remove(now, n)
		return
	}
	n.phase = nodeDoubted
	n.doubted = 0
	n.doubts++
	doubt := n.doubts
	a.senders.Go(func() {
		alive := a.c.traps.answers(n.name, n.addr, cmp.Or(a.c.cfg.patience, doubtTimeout))
		a.do(func(now claims.Instant) { a.doubtAnswered(now, n, doubt, alive) })
		if alive {
			a.c.list.Join([]string{n.addr}) // so that it contradicts
		}
	})
}

func (a *agent) doubtAnswered(now claims.Instant, n *node, doubt uint64, alive bool) {
	if a.nodes[n.id] == n && n.phase == nodeDoubted && n.doubts == doubt && !alive {
		a.giveUp(now, n)
	}
}

// tickDoubt gives a node up that memberlist does not take back.
func (a *agent) tickDoubt(now claims.Instant, n *node) {
	if n.doubted++; n.doubted > max(maxDoubtTicks, int(a.c.cfg.patience/tickEvery)) {
		a.giveUp(now, n)
	}
}

func (a *agent) giveUp(now claims.Instant, n *node) {
	a.news(n, slog.LevelWarn, "node does not answer and was given up")
	a.remove(now, n)
}

// remove forgets a node that is not on memberlist's list. Where it was is looked
// at for a long time, unless it went by itself.
func (a *agent) remove(now claims.Instant, n *node) {
	delete(a.nodes, n.id)
	close(n.stream.out)
	a.machine.NodeDown(now, n.id)
	if a.inQuorumMode() && n.phase != nodeDead {
		a.left[n.id] = &leftNode{list: n.list}
	}
	if n.phase != nodeLeaving {
		a.c.joiner.remember(n.addr)
	}
	a.viewChanged()
}

// saidGoodbye takes a node out of the view that will be gone in a moment.
func (a *agent) saidGoodbye(now claims.Instant, n *node) {
	if n.phase == nodeLeaving || n.phase == nodeDead {
		return
	}
	a.news(n, slog.LevelInfo, "node left")
	inDoubt := n.phase == nodeDoubted
	n.phase = nodeLeaving
	a.machine.Goodbye(now, n.id)
	if inDoubt {
		a.remove(now, n)
		return
	}
	a.viewChanged()
}

// processGone is the tripwire's word that the process of a node has ended. It
// is told to all, as not everybody watches that node.
func (a *agent) processGone(name string, proof error) {
	a.do(func(now claims.Instant) {
		n := a.find(name)
		if n == nil || !n.inView() {
			return
		}
		a.news(n, slog.LevelInfo, "the process of a node is gone", "proof", proof)
		if n.meta.guarded {
			a.awaitTestimony(n)
			return
		}
		a.tellDeparted(now, n)
	})
}

// awaitTestimony leaves it to the guard of a dead process to say that nothing of
// it is left. A guard that says nothing in time is gone, too.
func (a *agent) awaitTestimony(n *node) {
	a.senders.Go(func() {
		select {
		case <-time.After(cmp.Or(a.c.cfg.patience, testifyWithin)):
		case <-a.quit:
			return
		}
		a.do(func(now claims.Instant) {
			if a.nodes[n.id] == n && n.inView() {
				a.news(n, slog.LevelWarn, "the guard of a node that is gone says nothing")
				a.tellDeparted(now, n)
			}
		})
	})
}

// tellDeparted takes a node out of everybody's view.
func (a *agent) tellDeparted(now claims.Instant, n *node) {
	for _, other := range a.nodes {
		if other != n {
			a.tell(other, word{kind: wordDeparted, about: n.id})
		}
	}
	a.depart(now, n)
}

// depart takes a node out of the view before memberlist does. The proof may
// mislead, as when a firewall refuses connections: so the node is asked, now
// and until memberlist gives it up, and a word from itself takes it back.
func (a *agent) depart(now claims.Instant, n *node) {
	if n == nil || !n.inView() {
		return
	}
	if n.phase == nodeDoubted {
		a.remove(now, n)
		return
	}
	n.phase = nodeDeparted
	a.machine.NodeDown(now, n.id)
	n.asked = a.question(n)
	a.viewChanged()
}

func (a *agent) question(n *node) (number uint64) { return a.tell(n, word{kind: wordQuestion}) }

// answered takes a departure back, if the question was put after it.
func (a *agent) answered(now claims.Instant, n *node, number uint64) {
	if n.phase != nodeDeparted || number < n.asked {
		return
	}
	n.phase = nodeInView
	a.news(n, slog.LevelWarn, "a node that was taken for gone is alive")
	a.machine.NodeUp(now, n.id, n.voter, !n.meta.observer)
	a.viewChanged()
}

// news logs what happened to a node. Of an observer, which comes and goes with
// each look at the status, it is none.
func (a *agent) news(n *node, level slog.Level, text string, args ...any) {
	if n.meta.observer {
		level = slog.LevelDebug
	}
	a.log.Log(context.Background(), level, text, append([]any{"peer", n.name}, args...)...)
}

func (a *agent) find(name string) *node {
	_, incarnation, err := nodename.Split(name)
	if n := a.nodes[claims.Node(incarnation)]; err == nil && n != nil && n.name == name {
		return n
	}
	return nil
}

// viewChanged publishes the members and sets the tripwires.
func (a *agent) viewChanged() {
	members := []Member{member(a.c.name, a.c.addr, a.c.meta)}
	members[0].Self = true
	var names []string
	for _, n := range a.nodes {
		if n.inView() {
			members = append(members, member(n.name, n.addr, n.meta))
			names = append(names, n.name)
		}
	}
	if a.inQuorumMode() {
		a.logQuorum(votersByName(members))
		a.logExcess(members)
	} else {
		a.c.traps.watch(a.nextInRing(names))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.members = members
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

func member(name, addr string, meta nodeMeta) Member {
	return Member{Name: name, Addr: addr, Observer: meta.observer, rules: meta.rules}
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
	if a.inQuorumMode() {
		return votersByName(members), changed
	}
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
