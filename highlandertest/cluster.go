package highlandertest

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"highlander"
)

// Cluster is a cluster in memory. It decides as the embedded engine does in
// available mode, at once and always the same way: nodes that reach each other
// have one holder per id, first come, first served; a side that is cut off gets
// a holder of its own if somebody there asks for it; when sides meet again, the
// holder that more nodes stand behind stays. All methods may be called
// concurrently.
type Cluster struct {
	mu       sync.Mutex
	nodes    []*node             // alive, in the order in which they started
	started  map[string]int      // how often each name was started
	sideOf   map[string]int      // side of each name; those not in it are on side 0
	contests map[string]*contest // by id
	lastSeq  uint64              // of the claims made so far
	sides    map[int][]*node     // nodes that reach each other; frozen ones are on none
}

// New returns a cluster without nodes.
func New() *Cluster {
	return &Cluster{started: map[string]int{}, contests: map[string]*contest{}}
}

// Node returns the node of that name, and starts it if it is not running. A
// node that starts again after Crash or Close is another node, with another
// Cluster.Node: a#1, then a#2.
func (c *Cluster) Node(name string) highlander.Cluster {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.find(name); n != nil {
		return n
	}
	c.started[name]++
	n := &node{
		cluster: c,
		base:    name,
		name:    fmt.Sprintf("%s#%d", name, c.started[name]),
		claims:  map[*claim]bool{},
	}
	c.nodes = append(c.nodes, n)
	c.regroup()
	return n
}

// Partition cuts the network into sides, each a list of node names. Nodes that
// are in none of them form one more side together; nodes that start later are
// on the side that names them. It replaces an earlier partition.
func (c *Cluster) Partition(sides ...[]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sideOf := map[string]int{}
	for i, names := range sides {
		for _, name := range names {
			if _, twice := sideOf[name]; twice {
				panic(fmt.Sprintf("highlandertest: Partition: node %q is named twice", name))
			}
			sideOf[name] = i + 1
		}
	}
	c.sideOf = sideOf
	c.regroup()
}

// Heal makes the network whole. Where two nodes hold an id, the one that more
// nodes stand behind keeps it, of equals the one who won it last; the other
// one's lease is done with highlander.ErrConflict.
func (c *Cluster) Heal() {
	c.Partition()
}

// Crash ends a node as SIGKILL ends a process: its leases go to others at once,
// and nothing is told to its own side. There, leases stay as they are and
// Acquire waits until its context ends, as in a goroutine of a dead process;
// Lookup and Holders return highlander.ErrClosed. Close still ends everything,
// so that a test can clean up. It panics if no such node is running.
func (c *Cluster) Crash(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.running("Crash", name)
	n.crashed = true
	c.drop(n)
}

// Freeze stops a node as SIGSTOP stops a process: others give it up and take
// over its ids, of which it learns only in Unfreeze. Until then its own side
// sees what it saw last: its leases stay as they are, its Acquires wait. It
// panics if no such node is running.
func (c *Cluster) Freeze(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running("Freeze", name).frozen = true
	c.regroup()
}

// Unfreeze wakes a frozen node. Its leases that others took over are done with
// highlander.ErrConflict; those that nobody wanted it still has. It panics if
// no such node is running.
func (c *Cluster) Unfreeze(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running("Unfreeze", name).frozen = false
	c.regroup()
}

// Expire tells the holder of id that its lease is about to run out, as an
// engine does that cannot reach its server: the lease is done with
// highlander.ErrLeaseLost and Expires is AcquireOptions.StopWithin from now.
// The next in line gets the id then, or when the lease is released before. In a
// netsplit this goes for the holder on each side. It panics if nobody holds id.
func (c *Cluster) Expire(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var holders []*claim // before the first one hands over
	if ct := c.contests[id]; ct != nil {
		holders = slices.DeleteFunc(slices.Clone(ct.claims), func(cl *claim) bool { return !cl.holds() })
	}
	if len(holders) == 0 {
		panic(fmt.Sprintf("highlandertest: Expire: nobody holds %q", id))
	}
	for _, cl := range holders {
		cl.expire()
	}
}

// find returns the node that runs under a name, nil if none does.
func (c *Cluster) find(name string) *node {
	for _, n := range c.nodes {
		if n.base == name {
			return n
		}
	}
	return nil
}

// running is find for a node that the test says is there.
func (c *Cluster) running(method, name string) *node {
	n := c.find(name)
	if n == nil {
		panic(fmt.Sprintf("highlandertest: %s: no node %q is running", method, name))
	}
	return n
}

// drop takes a node and its claims out of the cluster.
func (c *Cluster) drop(n *node) {
	c.nodes = slices.DeleteFunc(c.nodes, func(m *node) bool { return m == n })
	for _, ct := range c.contests {
		ct.claims = slices.DeleteFunc(ct.claims, func(cl *claim) bool { return cl.node == n })
		delete(ct.views, n)
	}
	c.regroup()
}

// regroup follows a change of who reaches whom, and settles every id anew.
func (c *Cluster) regroup() {
	c.sides = map[int][]*node{}
	for _, n := range c.nodes {
		if !n.frozen {
			side := c.sideOf[n.base]
			c.sides[side] = append(c.sides[side], n)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(c.contests)) {
		c.settle(c.contests[id])
	}
}

// enter puts a new claim at the back of the queue.
func (c *Cluster) enter(cl *claim) {
	ct := c.contests[cl.id]
	if ct == nil {
		ct = &contest{views: map[*node]view{}}
		c.contests[cl.id] = ct
	}
	ct.claims = append(ct.claims, cl)
	c.settle(ct)
}

// leave takes a claim out of the queue.
func (c *Cluster) leave(cl *claim) {
	ct := c.contests[cl.id]
	if ct == nil {
		return
	}
	ct.remove(cl)
	c.settle(ct)
}

// settle decides an id on every side.
func (c *Cluster) settle(ct *contest) {
	for _, side := range slices.Sorted(maps.Keys(c.sides)) {
		ct.settle(c.sides[side], time.Now())
	}
}
