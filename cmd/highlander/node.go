package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"

	"highlander"
	"highlander/gossip"
	"highlander/internal/netfault"
)

// A node is a process of its own that demo and bench start, steer through its
// standard input and hear of through its standard output, a JSON object a line.
const nodeMode = "__node"

// nodeSetup is the first line that a node reads.
type nodeSetup struct {
	Name  string    `json:"name"`
	Label string    `json:"label"`
	Bind  string    `json:"bind,omitempty"` // a free port on loopback if empty
	Join  []string  `json:"join,omitempty"`
	Mode  fleetMode `json:"mode"`
	URL   string    `json:"url,omitempty"`   // a cluster of the user's, without faults
	Space string    `json:"space,omitempty"` // of the bench's own on the user's server
	Quiet bool      `json:"quiet"`           // counts what starts, instead of telling each
}

// nodeOrder is what a node is told to do.
type nodeOrder struct {
	Op    string   `json:"op"`
	ID    string   `json:"id,omitempty"`    // wrap, stop
	Count int      `json:"count,omitempty"` // wrap: so many ids, ID/0, ID/1, ...
	Addrs []string `json:"addrs,omitempty"` // cut
}

const (
	opWrap   = "wrap"
	opStop   = "stop" // ends Serve, as the end of a program would
	opCut    = "cut"
	opTidy   = "tidy" // collects garbage, as an idle program does by itself every few minutes
	opReport = "report"
)

// nodeEvent is what a node tells.
type nodeEvent struct {
	Event   string        `json:"event"`
	At      time.Duration `json:"at"` // monotonicNow
	Node    string        `json:"node,omitempty"`
	Addr    string        `json:"addr,omitempty"`
	ID      string        `json:"id,omitempty"`
	Token   uint64        `json:"token,omitempty"`
	Cause   string        `json:"cause,omitempty"`
	Count   int           `json:"count,omitempty"`
	CPU     time.Duration `json:"cpu,omitempty"`
	RSS     int64         `json:"rss,omitempty"`
	Message string        `json:"message,omitempty"`
}

const (
	evReady   = "ready"   // joined; Node, Addr
	evMembers = "members" // Count
	evStarted = "started" // the child runs; ID, Token
	evStopped = "stopped" // the child has cleaned up and returns; ID, Cause
	evRunning = "running" // quiet: Count children run, the last since At
	evUsage   = "usage"   // CPU, RSS
	evFailed  = "failed"  // Message
)

// The causes in evStopped.
const (
	causeShutdown = "shutdown"
	causeConflict = "conflict"
	causeLost     = "lease lost"
)

var quietLog = slog.New(slog.DiscardHandler)

// nodeMain becomes a node, and does not return, in a process started as one.
func nodeMain() {
	if len(os.Args) != 2 || os.Args[1] != nodeMode {
		return
	}
	// Ctrl-C reaches every process in the terminal, but it is for the parent to
	// end the nodes.
	signal.Ignore(os.Interrupt, syscall.SIGTERM)
	n := newNode(os.Stdout)
	if err := n.run(bufio.NewReader(os.Stdin)); err != nil {
		n.tell(nodeEvent{Event: evFailed, Message: err.Error()})
		os.Exit(exitFailure)
	}
	os.Exit(0)
}

func newNode(out io.Writer) *benchNode {
	return &benchNode{out: json.NewEncoder(out), stops: map[string]context.CancelFunc{}, changed: make(chan struct{}, 1)}
}

type benchNode struct {
	setup   nodeSetup
	cluster highlander.Cluster
	fault   *netfault.Transport // nil in a cluster of the user's
	fits    func(stopWithin time.Duration) error
	stops   map[string]context.CancelFunc
	serving sync.WaitGroup

	mu      sync.Mutex
	out     *json.Encoder
	running int
	last    time.Duration // when it changed
	changed chan struct{} // has something in it if it changed
}

// run obeys until its input ends, which it does when the parent is gone.
func (n *benchNode) run(in io.Reader) error {
	orders := json.NewDecoder(in)
	if err := orders.Decode(&n.setup); err != nil {
		return fmt.Errorf("read the setup: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := n.join(ctx); err != nil {
		return err
	}
	defer n.cluster.Close()
	for {
		var order nodeOrder
		if err := orders.Decode(&order); err != nil {
			cancel()
			n.serving.Wait()
			return nil
		}
		n.obey(ctx, order)
	}
}

func (n *benchNode) join(ctx context.Context) error {
	if n.setup.URL != "" {
		at, err := parseEndpoint("--cluster", n.setup.URL)
		if err != nil {
			return err
		}
		n.fits = at.checkStopWithin
		if n.cluster, err = at.beside(n.setup.Name, n.setup.Space).open(ctx, nil, quietLog); err != nil {
			return err
		}
	} else {
		host, portText, _ := net.SplitHostPort(n.setup.Bind)
		port, _ := strconv.Atoi(portText)
		network, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{cmp.Or(host, "127.0.0.1")}, BindPort: port, Logger: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)})
		if err != nil {
			return fmt.Errorf("open a port on loopback: %w", err)
		}
		n.fault = netfault.New(network)
		mode := n.setup.Mode
		cfg := gossip.Config{
			Name: n.setup.Name, Label: n.setup.Label, Transport: n.fault, Join: n.setup.Join,
			Quorum: mode.Quorum, Expect: mode.Voters, TTL: mode.TTL, Logger: quietLog,
		}
		n.fits = cfg.CheckStopWithin
		if n.cluster, err = gossip.Join(ctx, cfg); err != nil {
			return err
		}
	}
	ready := nodeEvent{Event: evReady, Node: n.cluster.Node()}
	if c, ok := n.cluster.(*gossip.Cluster); ok {
		ready.Addr = c.Addr()
		go n.watchMembers(ctx, c)
	}
	n.tell(ready)
	if n.setup.Quiet {
		go n.tellRunning(ctx)
	}
	return nil
}

// watchMembers tells how many members are in view whenever that has changed.
func (n *benchNode) watchMembers(ctx context.Context, c *gossip.Cluster) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	last := 0
	for {
		if count := len(c.Members()); count != last {
			last = count
			n.tell(nodeEvent{Event: evMembers, Count: count})
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// tellRunning tells how many children run whenever that has changed, but not
// more often than every few milliseconds.
func (n *benchNode) tellRunning(ctx context.Context) {
	for {
		select {
		case <-n.changed:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return
		}
		n.mu.Lock()
		n.out.Encode(nodeEvent{Event: evRunning, At: n.last, Count: n.running})
		n.mu.Unlock()
	}
}

func (n *benchNode) tell(e nodeEvent) {
	if e.At == 0 {
		e.At = monotonicNow()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.out.Encode(e)
}

func (n *benchNode) obey(ctx context.Context, order nodeOrder) {
	switch order.Op {
	case opWrap:
		if order.Count == 0 {
			n.wrap(ctx, order.ID)
		}
		for i := range order.Count {
			n.wrap(ctx, order.ID+"/"+strconv.Itoa(i))
		}
	case opStop:
		if stop := n.stops[order.ID]; stop != nil {
			stop()
		}
	case opCut:
		if n.fault != nil {
			n.fault.Cut(order.Addrs...)
		}
	case opTidy:
		debug.FreeOSMemory()
	case opReport:
		cpu, rss := usage()
		n.tell(nodeEvent{Event: evUsage, CPU: cpu, RSS: rss})
	}
}

func (n *benchNode) wrap(ctx context.Context, id string) {
	child := highlander.ServiceFunc(n.countedChild)
	if !n.setup.Quiet {
		child = n.toldChild
		ctx, n.stops[id] = context.WithCancel(ctx)
	}
	spec := highlander.ChildSpec{ID: id, Service: child, Shutdown: highlander.DefaultShutdown}
	for n.fits(spec.Shutdown) != nil {
		spec.Shutdown /= 2 // the TTL is short
	}
	s := highlander.Wrap(n.cluster, spec, highlander.WithLogger(quietLog))
	n.serving.Go(func() { s.Serve(ctx) })
}

// countedChild is the child of a quiet node.
func (n *benchNode) countedChild(ctx context.Context) error {
	n.count(1)
	<-ctx.Done()
	n.count(-1)
	return nil
}

// toldChild tells when it starts and stops.
func (n *benchNode) toldChild(ctx context.Context) error {
	started := monotonicNow()
	info, _ := highlander.FromContext(ctx)
	n.tell(nodeEvent{Event: evStarted, At: started, ID: info.ID, Token: info.Token()})
	<-ctx.Done()
	n.tell(nodeEvent{Event: evStopped, ID: info.ID, Cause: causeName(context.Cause(ctx))})
	return nil
}

func (n *benchNode) count(delta int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.running += delta
	n.last = monotonicNow()
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

func causeName(cause error) string {
	switch cause {
	case highlander.ErrConflict:
		return causeConflict
	case highlander.ErrLeaseLost:
		return causeLost
	}
	return causeShutdown
}
