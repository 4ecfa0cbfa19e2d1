package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"time"
)

// meetWithin is how long the nodes of a fleet may take to find each other in the
// cluster of the user.
const meetWithin = 30 * time.Second

// fleet is a cluster of node processes under the control of this one. It is to
// be used by one goroutine.
type fleet struct {
	url    string // of the user's cluster; empty: one of the fleet's own
	space  string // for the bench there
	label  string // of the fleet's own
	mode   fleetMode
	quiet  bool
	nodes  []*nodeProcess
	events chan fleetEvent
	closed chan struct{} // ends the readers
	reads  sync.WaitGroup
	named  int
}

// fleetMode is how the nodes of a fleet's own cluster decide; the zero value is
// available mode.
type fleetMode struct {
	Quorum int           `json:"quorum,omitempty"`
	Voters int           `json:"voters,omitempty"`
	TTL    time.Duration `json:"ttl,omitempty"`
}

// nodeProcess is a node process and what is known of it.
type nodeProcess struct {
	name    string // for people: node-1
	bind    string // quorum mode: the address that was chosen for it
	cmd     *exec.Cmd
	orders  *json.Encoder
	input   io.Closer
	dead    bool
	full    string // name in the cluster
	addr    string
	members int
	running map[string]time.Duration // id -> since
	stopped map[string]nodeEvent     // id -> the last time it stopped
	count   int                      // quiet: children running
	counted time.Duration            // since when
	usage   nodeEvent
}

// fleetEvent is an event of a node; its process has ended if err is set.
type fleetEvent struct {
	node *nodeProcess
	nodeEvent
	err error
}

func newFleet(url string, quiet bool) *fleet {
	return &fleet{url: url, label: "fleet-" + rand.Text(), quiet: quiet, events: make(chan fleetEvent, 1024), closed: make(chan struct{})}
}

// start adds a node and waits until it has joined.
func (f *fleet) start(ctx context.Context) (*nodeProcess, error) {
	f.named++
	n, err := f.launch(fmt.Sprintf("node-%d", f.named), "", f.addrs())
	if err != nil {
		return nil, err
	}
	return n, f.joined(ctx, n)
}

// replace starts a node in place of one that was killed. In quorum mode it is the
// same voter.
func (f *fleet) replace(ctx context.Context, killed *nodeProcess) (*nodeProcess, error) {
	if f.mode.Quorum == 0 {
		return f.start(ctx)
	}
	n, err := f.launch(killed.name, killed.bind, f.addrs())
	if err != nil {
		return nil, err
	}
	return n, f.joined(ctx, n)
}

// startVoters starts all voters together, as in quorum mode they wait for each
// other in Join.
func (f *fleet) startVoters(ctx context.Context) error {
	addrs, err := freeLoopback(f.mode.Voters)
	if err != nil {
		return err
	}
	for i, addr := range addrs {
		if _, err := f.launch(fmt.Sprintf("node-%d", i+1), addr, addrs); err != nil {
			return err
		}
	}
	for _, n := range f.nodes {
		if err := f.joined(ctx, n); err != nil {
			return err
		}
	}
	return f.during(ctx, f.mode.TTL+f.mode.TTL/25) // from then on they vote
}

// freeLoopback returns addresses that were free a moment ago.
func freeLoopback(count int) (addrs []string, err error) {
	ip := loopbackIP()
	for range count {
		l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
		if err != nil {
			return nil, fmt.Errorf("find a free port on loopback: %w", err)
		}
		defer l.Close() // not before there are all, as each is another one
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}

// loopbackIP returns an address of this machine, on Linux one that hardly anybody
// else uses: a port that was free there is so until a process listens on it, or
// does so again.
func loopbackIP() string {
	if runtime.GOOS != "linux" {
		return "127.0.0.1"
	}
	random := make([]byte, 3)
	rand.Read(random)
	return net.IPv4(127, 1+random[0]%254, random[1], 1+random[2]%254).String()
}

func (f *fleet) joined(ctx context.Context, n *nodeProcess) error {
	return f.until(ctx, n.name+" to join", func() bool { return n.full != "" })
}

// addrs returns where live nodes are.
func (f *fleet) addrs() (addrs []string) {
	for _, n := range f.live() {
		if n.addr != "" {
			addrs = append(addrs, n.addr)
		}
	}
	return addrs
}

// launch starts the process of a node.
func (f *fleet) launch(name, bind string, join []string) (*nodeProcess, error) {
	n := &nodeProcess{name: name, bind: bind, running: map[string]time.Duration{}, stopped: map[string]nodeEvent{}}
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", n.name, err)
	}
	n.cmd = exec.Command(exe)
	n.cmd.Args = []string{os.Args[0], nodeMode}
	n.cmd.Stderr = os.Stderr
	n.cmd.SysProcAttr = nodeAttr()
	in, err := n.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", n.name, err)
	}
	out, err := n.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", n.name, err)
	}
	if err := n.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", n.name, err)
	}
	n.input, n.orders = in, json.NewEncoder(in)
	setup := nodeSetup{Name: n.name, Label: f.label, URL: f.url, Space: f.space, Quiet: f.quiet, Bind: bind, Join: join, Mode: f.mode}
	f.nodes = append(f.nodes, n)
	f.reads.Go(func() { f.read(n, out) })
	if err := n.orders.Encode(setup); err != nil {
		return nil, fmt.Errorf("start %s: %w", n.name, err)
	}
	return n, nil
}

// startAll adds count nodes, in quorum mode all voters, and waits until all see
// each other.
func (f *fleet) startAll(ctx context.Context, count int) error {
	if f.mode.Quorum > 0 {
		if err := f.startVoters(ctx); err != nil {
			return err
		}
		return f.whole(ctx)
	}
	for range count {
		if _, err := f.start(ctx); err != nil {
			return err
		}
	}
	if f.url != "" {
		return f.meet(ctx)
	}
	return f.whole(ctx)
}

// meet waits until all nodes see each other in the cluster of the user, where
// there may be others as well. On a server they do not see each other.
func (f *fleet) meet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, meetWithin)
	defer cancel()
	live := f.live()
	err := f.until(ctx, "all nodes to see each other", func() bool {
		return !slices.ContainsFunc(live, func(n *nodeProcess) bool { return n.addr != "" && n.members < len(live) })
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the nodes of bench have not found each other within %v; is a node of the cluster up where its URL says?", meetWithin)
	}
	return err
}

// whole waits until all live nodes see each other and no others.
func (f *fleet) whole(ctx context.Context) error {
	if f.url != "" {
		return nil // other nodes may be members as well, or there is no view
	}
	return f.until(ctx, "all nodes to see each other", func() bool {
		live := f.live()
		return !slices.ContainsFunc(live, func(n *nodeProcess) bool { return n.members != len(live) })
	})
}

func (f *fleet) read(n *nodeProcess, out io.Reader) {
	events := json.NewDecoder(out)
	for {
		e := fleetEvent{node: n}
		if err := events.Decode(&e.nodeEvent); err != nil {
			e.err = err
		}
		select {
		case f.events <- e:
		case <-f.closed:
			return
		}
		if e.err != nil {
			return
		}
	}
}

// until takes events until cond holds. It fails when ctx ends or a node does
// that was not killed.
func (f *fleet) until(ctx context.Context, what string, cond func() bool) error {
	for !cond() {
		select {
		case e := <-f.events:
			if err := f.take(e); err != nil {
				return fmt.Errorf("waiting for %s: %w", what, err)
			}
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
		}
	}
	return nil
}

// during takes events for a time.
func (f *fleet) during(ctx context.Context, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	err := f.until(ctx, "time to pass", func() bool { return false })
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

func (f *fleet) take(e fleetEvent) error {
	n := e.node
	switch {
	case e.err != nil && !n.dead:
		n.dead = true
		return fmt.Errorf("%s ended by itself", n.name)
	case e.err != nil || n.dead:
		return nil
	}
	switch e.Event {
	case evReady:
		n.full, n.addr = e.Node, e.Addr
	case evMembers:
		n.members = e.Count
	case evStarted:
		n.running[e.ID] = e.At
	case evStopped:
		delete(n.running, e.ID)
		n.stopped[e.ID] = e.nodeEvent
	case evRunning:
		n.count, n.counted = e.Count, e.At
	case evUsage:
		n.usage = e.nodeEvent
	case evFailed:
		return fmt.Errorf("%s: %s", n.name, e.Message)
	}
	return nil
}

// live returns the nodes that were not killed.
func (f *fleet) live() []*nodeProcess {
	return slices.DeleteFunc(slices.Clone(f.nodes), func(n *nodeProcess) bool { return n.dead })
}

// holders returns the live nodes that run the child of id.
func (f *fleet) holders(id string) []*nodeProcess {
	return slices.DeleteFunc(f.live(), func(n *nodeProcess) bool { _, runs := n.running[id]; return !runs })
}

// one returns the node that runs the child of id, or nil if not exactly one does.
func (f *fleet) one(id string) *nodeProcess {
	if h := f.holders(id); len(h) == 1 {
		return h[0]
	}
	return nil
}

// others returns the live nodes but n.
func (f *fleet) others(n *nodeProcess) []*nodeProcess {
	return slices.DeleteFunc(f.live(), func(o *nodeProcess) bool { return o == n })
}

func (f *fleet) order(o nodeOrder, nodes ...*nodeProcess) error {
	for _, n := range nodes {
		if err := n.orders.Encode(o); err != nil {
			return fmt.Errorf("%s %s: %w", o.Op, n.name, err)
		}
	}
	return nil
}

// kill ends a node with SIGKILL and returns when that was sent.
func (f *fleet) kill(n *nodeProcess) time.Duration {
	at := monotonicNow()
	n.end()
	return at
}

// end kills the process, if it still runs, and waits for it.
func (n *nodeProcess) end() {
	n.dead = true
	n.cmd.Process.Kill()
	n.cmd.Wait()
	n.input.Close()
}

// split cuts n off from all others.
func (f *fleet) split(n *nodeProcess) error {
	var addrs []string
	for _, o := range f.others(n) {
		addrs = append(addrs, o.addr)
		if err := f.order(nodeOrder{Op: opCut, Addrs: []string{n.addr}}, o); err != nil {
			return err
		}
	}
	return f.order(nodeOrder{Op: opCut, Addrs: addrs}, n)
}

// apart waits until n and the others have given each other up.
func (f *fleet) apart(ctx context.Context, n *nodeProcess) error {
	return f.until(ctx, "both sides to give each other up", func() bool {
		others := f.others(n)
		return n.members == 1 && !slices.ContainsFunc(others, func(o *nodeProcess) bool { return o.members != len(others) })
	})
}

func (f *fleet) heal() error { return f.order(nodeOrder{Op: opCut}, f.live()...) }

// close ends all nodes.
func (f *fleet) close() {
	for _, n := range f.nodes {
		n.end()
	}
	close(f.closed)
	f.reads.Wait()
}
