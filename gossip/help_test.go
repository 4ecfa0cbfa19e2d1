package gossip_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/goleak"

	"highlander"
	"highlander/gossip"
	"highlander/internal/boottime"
	"highlander/internal/netfault"
)

// patience is how long a step may take. It is a safety net: no step is expected
// to need a noticeable part of it.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		childMain()
	}
	slog.SetDefault(slog.New(slog.DiscardHandler))
	flag.Parse()
	fuzzing := flag.Lookup("test.fuzz").Value.String() != ""
	if !fuzzing && flag.Lookup("test.parallel").Value.String() == fmt.Sprint(runtime.GOMAXPROCS(0)) {
		flag.Set("test.parallel", sideBySide)
	}
	code := m.Run()
	if code == 0 && !leavesNothing() {
		code = 1
	}
	os.Exit(code)
}

// leavesNothing waits for memberlist's goroutines. Its Shutdown does not wait
// for them, and a probe that is under way takes up to two probe intervals.
func leavesNothing() bool {
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if err = goleak.Find(); err == nil {
			return true
		}
	}
	fmt.Fprintln(os.Stderr, "goroutines were left behind:", err)
	return false
}

// logTo returns a logger whose lines are shown if the test fails.
func logTo(t testing.TB, level slog.Level) (*slog.Logger, *testLog) {
	w := &testLog{changed: make(chan struct{})}
	t.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if t.Failed() {
			t.Logf("log of the nodes:\n%s", w.text.Bytes())
		}
	})
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})), w
}

// testLog keeps the lines of a log.
type testLog struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func (w *testLog) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changed != nil {
		close(w.changed)
	}
	w.changed = make(chan struct{})
	return w.text.Write(b)
}

// lines returns the lines that contain something, and a channel that is closed
// when there are more lines.
func (w *testLog) lines(containing string) (lines []string, more <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for line := range strings.Lines(w.text.String()) {
		if strings.Contains(line, containing) {
			lines = append(lines, line)
		}
	}
	return lines, w.changed
}

// world is a set of nodes of one test, each behind a transport with faults.
type world struct {
	t        testing.TB
	log      *slog.Logger
	text     *testLog
	config   gossip.Config // for every node
	tune     func(*memberlist.Config)
	patience time.Duration                   // of nodes with one that is slow to answer, in place of fractions of a second; one that has crashed is noticed by the tripwire
	clocks   map[string]func() time.Duration // by which leases end, by name of the node
	ahead    atomic.Int64                    // by how much all clocks are, in nanoseconds

	mu     sync.Mutex
	nodes  []*gossip.Cluster
	faults map[*gossip.Cluster]*netfault.Transport
}

// newWorld returns a world for tests that nobody is to be given up in, however busy
// the machine is.
func newWorld(t testing.TB) *world {
	w := watchfulWorld(t)
	w.tune, w.patience = noFailureDetector, patience
	return w
}

// watchfulWorld returns a world whose nodes give each other up as they do in life.
func watchfulWorld(t testing.TB) *world {
	w := &world{t: t, faults: map[*gossip.Cluster]*netfault.Transport{}}
	w.log, w.text = logTo(t, slog.LevelInfo)
	t.Cleanup(w.closeAll)
	return w
}

// noFailureDetector makes SWIM blind: who is noticed is noticed otherwise.
func noFailureDetector(mc *memberlist.Config) { mc.ProbeInterval = time.Hour }

// closeAll closes all nodes at once, as each takes a part of a second.
func (w *world) closeAll() {
	w.mu.Lock()
	nodes := w.nodes
	w.mu.Unlock()
	var closing sync.WaitGroup
	for _, c := range nodes {
		closing.Go(func() { c.Close() })
	}
	closing.Wait()
}

// logged returns the lines of the nodes' log that contain something.
func (w *world) logged(containing string) []string {
	lines, _ := w.text.lines(containing)
	return lines
}

// dropsNothingFor checks that nothing was dropped for a reason. For others,
// something may be: a stream that breaks off as its sender was too slow.
func (w *world) dropsNothingFor(reason string) {
	w.t.Helper()
	for _, line := range w.logged("dropped what is not for this cluster") {
		if strings.Contains(line, reason) {
			w.t.Errorf("the log says %s", line)
		}
	}
}

// awaitLog waits until count lines contain something.
func (w *world) awaitLog(containing string, count int) {
	w.t.Helper()
	for {
		lines, more := w.text.lines(containing)
		if len(lines) >= count {
			return
		}
		receive(w.t, more, fmt.Sprintf("%d lines in the log with %q", count, containing))
	}
}

// Nodes that were lost are looked for where they were, and tests start nodes anew
// at the address of one that has ended. So nobody else may get an address that a
// test has used: neither another test, nor what else runs on this machine. The
// nodes of a process have an IP of their own where there is one to be had, and no
// port twice.
var (
	ownIP    = pickIP()
	lastPort atomic.Uint32
)

func pickIP() string {
	ip := net.IPv4(127, byte(2+rand.N(250)), byte(rand.N(256)), byte(1+rand.N(254))).String()
	l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		return "127.0.0.1" // which is all that some systems have of loopback
	}
	l.Close()
	return ip
}

// nextPort returns a port below those that the kernel gives out.
func nextPort() int { return 10_000 + int((lastPort.Add(1)+uint32(os.Getpid())*100)%20_000) }

// bind opens the network of a node, on a new port if it is zero.
func bind(t testing.TB, port int) *netfault.Transport {
	t.Helper()
	for try := 1; ; try++ {
		cfg := memberlist.NetTransportConfig{BindAddrs: []string{ownIP}, BindPort: cmp.Or(port, nextPort()), Logger: slog.NewLogLogger(slog.DiscardHandler, 0)}
		inner, err := memberlist.NewNetTransport(&cfg)
		if err == nil {
			return netfault.New(inner)
		}
		if port != 0 || try == 100 {
			t.Fatal(err)
		}
	}
}

func addrOf(transport *netfault.Transport) string {
	ip, port, _ := transport.FinalAdvertiseAddr("", 0)
	return fmt.Sprintf("%s:%d", ip, port)
}

// join opens a node that joins the ones given; without any, it is the first.
func (w *world) join(name string, others ...*gossip.Cluster) *gossip.Cluster {
	w.t.Helper()
	var addrs []string
	for _, c := range others {
		addrs = append(addrs, c.Addr())
	}
	cfg := w.config
	if len(others) > 0 {
		cfg = cfg.Meeting()
	}
	c, err := w.tryJoinAs(w.t.Context(), cfg, bind(w.t, 0), name, addrs...)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) tryJoin(ctx context.Context, transport *netfault.Transport, name string, addrs ...string) (*gossip.Cluster, error) {
	return w.tryJoinAs(ctx, w.config, transport, name, addrs...)
}

// tryJoinAs is tryJoin with another configuration.
func (w *world) tryJoinAs(ctx context.Context, cfg gossip.Config, transport *netfault.Transport, name string, addrs ...string) (*gossip.Cluster, error) {
	cfg.Name, cfg.Join, cfg.Transport, cfg.Logger = name, addrs, transport, w.log
	if w.patience > 0 {
		cfg = cfg.WithPatience(w.patience)
	}
	up := w.clocks[name]
	if up == nil {
		up = boottime.Now
	}
	cfg = cfg.WithClock(func() time.Duration { return up() + time.Duration(w.ahead.Load()) })
	tune := w.tune
	if tune == nil {
		tune = func(*memberlist.Config) {}
	}
	c, err := gossip.JoinTuned(ctx, cfg, tune)
	if err != nil {
		transport.Shutdown()
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes = append(w.nodes, c)
	w.faults[c] = transport
	return c, nil
}

// cluster opens n nodes that all see each other.
func (w *world) cluster(n int) []*gossip.Cluster {
	w.t.Helper()
	nodes := []*gossip.Cluster{w.join("n00")}
	var joining sync.WaitGroup
	for i := 1; i < n; i++ {
		joining.Go(func() {
			if _, err := w.tryJoinAs(w.t.Context(), w.config.Meeting(), bind(w.t, 0), fmt.Sprintf("n%02d", i), nodes[0].Addr()); err != nil {
				w.t.Error(err)
			}
		})
	}
	joining.Wait()
	nodes = slices.Clone(w.nodes)
	slices.SortFunc(nodes, func(a, b *gossip.Cluster) int { return strings.Compare(a.Node(), b.Node()) })
	w.see(n, nodes...)
	return nodes
}

// quorum opens nodes that wait for each other in Join, and all see each other. The
// time in which voters that have just started vote for nobody has passed.
func (w *world) quorum(names ...string) []*gossip.Cluster {
	w.t.Helper()
	transports := make([]*netfault.Transport, len(names))
	addrs := make([]string, len(names))
	for i := range names {
		transports[i] = bind(w.t, 0)
		addrs[i] = addrOf(transports[i])
	}
	nodes := make([]*gossip.Cluster, len(names))
	var joining sync.WaitGroup
	for i, name := range names {
		joining.Go(func() {
			c, err := w.tryJoinAs(w.t.Context(), w.config.Meeting(), transports[i], name, addrs...)
			if err != nil {
				w.t.Error(err)
			}
			nodes[i] = c
		})
	}
	joining.Wait()
	if w.t.Failed() {
		w.t.FailNow()
	}
	w.see(len(names), nodes...)
	w.ahead.Add(int64(cmp.Or(w.config.TTL, gossip.DefaultTTL) * 105 / 100))
	return nodes
}

// baseName is the name that a test has given to a node.
func baseName(c highlander.Cluster) string {
	name, _, _ := strings.Cut(c.Node(), "#")
	return name
}

// see waits until each of the nodes sees count members, itself included.
func (w *world) see(count int, nodes ...*gossip.Cluster) {
	w.t.Helper()
	for _, c := range nodes {
		w.awaitView(c, fmt.Sprintf("%d members", count), func(members []gossip.Member) bool { return len(members) == count })
	}
}

// seeNot waits until a node does not see another one.
func (w *world) seeNot(c, other *gossip.Cluster) {
	w.t.Helper()
	w.awaitView(c, other.Node()+" is out of view", func(members []gossip.Member) bool {
		return !slices.ContainsFunc(members, func(m gossip.Member) bool { return m.Name == other.Node() })
	})
}

func (w *world) awaitView(c *gossip.Cluster, what string, ok func([]gossip.Member) bool) {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		members, changed := c.Membership()
		if ok(members) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			w.t.Fatalf("%s: waited in vain for: %s; it sees %v", c.Node(), what, members)
		}
	}
}

// cut cuts the network between two groups of nodes; heal mends all cuts.
func (w *world) cut(left, right []*gossip.Cluster) {
	for _, c := range left {
		w.faults[c].Cut(addrsOf(right)...)
	}
	for _, c := range right {
		w.faults[c].Cut(addrsOf(left)...)
	}
}

// cutOneWay drops what from sends to to.
func (w *world) cutOneWay(from, to []*gossip.Cluster) {
	for _, c := range from {
		w.faults[c].Cut(addrsOf(to)...)
	}
	for _, c := range to {
		w.faults[c].Deafen(addrsOf(from)...)
	}
}

// splitWorld returns a world whose nodes are given up by split only. Rumours of it
// are still about when it has healed, and then a node that is alive has to say so
// within the time after which those that are cut off are given up.
func splitWorld(t testing.TB) *world {
	w := watchfulWorld(t)
	w.tune, w.patience = noFailureDetector, 5*time.Second
	return w
}

// split cuts the network between two groups of nodes, and tells each that the
// others are dead, as their failure detectors do in the end.
func (w *world) split(left, right []*gossip.Cluster) {
	w.t.Helper()
	w.cut(left, right)
	for end := time.Now().Add(patience); w.tellDead(left, right)+w.tellDead(right, left) > 0; {
		if time.Now().After(end) {
			w.t.Fatal("the sides do not believe that each other is dead")
		}
		<-time.After(50 * time.Millisecond) // packets may be lost
	}
	w.see(len(left), left...)
	w.see(len(right), right...)
}

// tellDead tells the memberlists of some nodes that others are dead, and returns
// how often it had to.
func (w *world) tellDead(nodes, others []*gossip.Cluster) (count int) {
	w.t.Helper()
	for _, c := range nodes {
		for _, other := range others {
			if c.IsAlive(other.Node()) {
				sendPacket(w.t, c, label+"\x05"+deadMessage(other.Node(), 100))
				count++
			}
		}
	}
	return count
}

func (w *world) heal() {
	for _, fault := range w.faults {
		fault.Cut()
		fault.Deafen()
	}
}

func addrsOf(nodes []*gossip.Cluster) (addrs []string) {
	for _, c := range nodes {
		addrs = append(addrs, c.Addr())
	}
	return addrs
}

// stage is where the children of one id appear.
type stage struct {
	t        testing.TB
	id       string
	shutdown time.Duration // of the child; zero: the default

	mu      sync.Mutex
	all     []*replica
	running map[string]bool // nodes whose child runs
	most    int             // that were running at one time
	starts  int
	ends    []ending
	changed chan struct{}
}

// ending is how a child ended.
type ending struct {
	node  string
	cause error
}

func newStage(t testing.TB, id string) *stage {
	return &stage{t: t, id: id, running: map[string]bool{}, changed: make(chan struct{})}
}

// replica is a singleton that runs in the background.
type replica struct {
	node *gossip.Cluster
	stop context.CancelFunc
	done chan error
}

// end stops the singleton and waits.
func (r *replica) end() error {
	r.stop()
	return <-r.done
}

// wrap runs a singleton of the stage's id on a node until the test ends.
func (s *stage) wrap(c *gossip.Cluster) *replica {
	ctx, stop := context.WithCancel(context.Background())
	r := &replica{node: c, stop: stop, done: make(chan error, 1)}
	single := highlander.Wrap(c, highlander.ChildSpec{ID: s.id, Shutdown: s.shutdown, Service: highlander.ServiceFunc(func(ctx context.Context) error {
		return s.act(ctx, c.Node())
	})}, highlander.WithLogger(slog.New(slog.DiscardHandler)))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.done <- single.Serve(ctx)
	}()
	s.t.Cleanup(func() {
		stop()
		<-ended
	})
	s.note(func() { s.all = append(s.all, r) })
	return r
}

// endAll ends all singletons of the stage.
func (s *stage) endAll() {
	for _, r := range s.all {
		r.end()
	}
}

// act is the child: it runs until it is told to stop, then cleans up.
func (s *stage) act(ctx context.Context, node string) error {
	s.note(func() {
		s.starts++
		s.running[node] = true
		s.most = max(s.most, len(s.running))
	})
	<-ctx.Done()
	s.note(func() {
		delete(s.running, node)
		s.ends = append(s.ends, ending{node, context.Cause(ctx)})
	})
	return nil
}

func (s *stage) note(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.changed)
	s.changed = make(chan struct{})
}

// await waits until the stage is as ok says; ok is called with the lock held.
func (s *stage) await(what string, ok func() bool) {
	s.t.Helper()
	deadline := time.After(patience)
	for {
		s.mu.Lock()
		done, changed := ok(), s.changed
		state := fmt.Sprintf("running on %v after %d starts, ended: %v", s.running, s.starts, s.ends)
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			s.t.Fatalf("%q: waited in vain for: %s; it is %s", s.id, what, state)
		}
	}
}

// oneRuns waits until the child runs on exactly one node, and returns that.
func (s *stage) oneRuns() string {
	s.t.Helper()
	return s.run(1)[0]
}

// run waits until the child runs on exactly n nodes, and returns them.
func (s *stage) run(n int) (nodes []string) {
	s.t.Helper()
	s.await(fmt.Sprintf("it runs on %d nodes", n), func() bool {
		nodes = nodes[:0]
		for node := range s.running {
			nodes = append(nodes, node)
		}
		return len(nodes) == n
	})
	slices.Sort(nodes)
	return nodes
}

// runsOn waits until the child runs on that node alone.
func (s *stage) runsOn(c *gossip.Cluster) {
	s.t.Helper()
	s.await("it runs on "+c.Node()+" alone", func() bool { return len(s.running) == 1 && s.running[c.Node()] })
}

// never checks that there were never more than n children at one time.
func (s *stage) never(more int) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.most > more {
		s.t.Errorf("%q: %d children ran at the same time, want at most %d", s.id, s.most, more)
	}
}

// endedBy returns the causes with which the child ended on a node.
func (s *stage) endedBy(node string) (causes []error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.ends {
		if e.node == node {
			causes = append(causes, e.cause)
		}
	}
	return causes
}

// pick returns the node of that name, and the others.
func pick(nodes []*gossip.Cluster, name string) (picked *gossip.Cluster, others []*gossip.Cluster) {
	for _, c := range nodes {
		if c.Node() == name {
			picked = c
		} else {
			others = append(others, c)
		}
	}
	return picked, others
}

// acquire acquires a lease that is free or about to be.
func acquire(t testing.TB, c *gossip.Cluster, id string) highlander.Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l, err := c.Acquire(ctx, id, highlander.AcquireOptions{})
	if err != nil {
		t.Fatalf("%s: acquire %q: %v", c.Node(), id, err)
	}
	return l
}

// held checks that a lease is.
func held(t testing.TB, l highlander.Lease) {
	t.Helper()
	select {
	case <-l.Done():
		t.Errorf("the lease was lost: %v", l.Err())
	default:
	}
}

// receive waits for something.
func receive[T any](t testing.TB, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// isCause says whether the causes are exactly one, this one.
func isCause(causes []error, want error) bool { return len(causes) == 1 && errors.Is(causes[0], want) }
