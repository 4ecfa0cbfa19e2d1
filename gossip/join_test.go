package gossip_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"highlander"
	"highlander/gossip"
	"highlander/internal/netfault"
)

func TestJoinOfTheFirstNodeReturns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nobody := bind(t, 0)
	t.Cleanup(func() { nobody.Shutdown() })
	addr := addrOf(nobody)
	nobody.Shutdown()
	c, err := w.tryJoin(t.Context(), bind(t, 0), "first", addr)
	if err != nil {
		t.Fatal(err)
	}
	held(t, acquire(t, c, "id"))
}

// Trap 28: replicas that boot together each elect themselves before they have
// found the others.
func TestReplicasThatBootTogetherDoNotEachStart(t *testing.T) {
	t.Parallel()
	const count, rounds = 5, 10
	for range rounds {
		w := newWorld(t)
		var transports []*netfault.Transport
		var addrs []string
		for range count {
			transports = append(transports, bind(t, 0))
			addrs = append(addrs, addrOf(transports[len(transports)-1]))
		}
		s := newStage(t, "id")
		var booting sync.WaitGroup
		for i, transport := range transports {
			booting.Go(func() {
				c, err := w.tryJoinAs(t.Context(), w.config.Meeting(), transport, fmt.Sprint("n", i), addrs...)
				if err != nil {
					t.Error(err)
					return
				}
				s.wrap(c)
			})
		}
		booting.Wait()
		w.see(count, w.nodes...)
		s.oneRuns()
		passRound(t, w.nodes)
		s.never(1)
		for _, c := range w.nodes {
			if causes := s.endedBy(c.Node()); len(causes) > 0 {
				t.Errorf("the child on %s ended with %v", c.Node(), causes)
			}
		}
		s.endAll()
		w.closeAll()
	}
}

func TestExpectedNodesAreWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.log, w.text = logTo(t, slog.LevelDebug) // observers come and go quietly
	first, second, third := bind(t, 0), bind(t, 0), bind(t, 0)
	addrs := []string{addrOf(first), addrOf(second), addrOf(third)}
	third.Shutdown() // nobody is there yet
	joined := make(chan struct{}, 3)
	join := func(transport *netfault.Transport, name string) {
		if _, err := w.tryJoinAs(t.Context(), gossip.Config{Expect: 3}, transport, name, addrs...); err != nil {
			t.Error(err)
		}
		joined <- struct{}{}
	}
	go join(first, "first")
	go join(second, "second")

	// A third one joins the two, and is seen by both, but is not counted: it is an
	// observer.
	observer, err := w.tryJoinAs(t.Context(), gossip.Config{Observer: true}, bind(t, 0), "observer", addrs[:2]...)
	if err != nil {
		t.Fatal(err)
	}
	w.see(3, observer)
	w.awaitLog("node joined", 6)
	go join(bind(t, portOf(t, addrs[2])), "third")
	for range 3 {
		receive(t, joined, "a node to join")
	}
	for _, name := range []string{"first", "second"} {
		for _, line := range w.logged("joined the cluster") {
			if strings.Contains(line, "node="+name) && !strings.Contains(line, "voters=3") {
				t.Errorf("it did not wait for three voters: %s", line)
			}
		}
	}
}

// A node that joins several others meets all of them before it may claim
// anything: each of them may have a holder that the others do not know.
func TestJoinTriesAllAddressesBeforeItReturns(t *testing.T) {
	t.Parallel()
	for {
		w := newWorld(t)
		quick, slow := w.join("quick"), w.join("slow")
		transport := bind(t, 0)
		transport.Cut(slow.Addr())
		joined := make(chan *gossip.Cluster, 1)
		start := time.Now()
		go func() {
			c, err := w.tryJoin(t.Context(), transport, "late", quick.Addr(), slow.Addr())
			if err != nil {
				t.Error(err)
			}
			joined <- c
		}()
		w.see(2, quick)
		transport.Cut()
		c := receive(t, joined, "the node to join")
		members := c.Members()
		if time.Since(start) < gossip.SettleTime { // else it need not have waited
			if len(members) != 3 {
				t.Errorf("it has joined and sees %v only", members)
			}
			return
		}
	}
}

func TestContextEndsWhileNodesAreWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Expect = 2
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	transport := bind(t, 0)
	ended := make(chan error, 1)
	go func() {
		_, err := w.tryJoin(ctx, transport, "waits")
		ended <- err
	}()
	cancel(cause)
	err := receive(t, ended, "Join to return")
	if !errors.Is(err, cause) || !strings.HasPrefix(err.Error(), "gossip: join: 1 of 2 nodes found: ") {
		t.Errorf("Join returned %v, want the cause of its context", err)
	}
	again := bind(t, portOf(t, addrOf(transport))) // its port is free again
	again.Shutdown()
}

// Rule 5: clocks are exchanged before Join returns, so that nobody with a slow
// clock gets in front of those who wait already.
func TestClocksAreExchangedBeforeJoinReturns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.join("a")
	a.Advance(time.Hour)
	ahead := a.HLC()
	b := w.join("b", a)
	if b.HLC() < ahead {
		t.Error("the node that has joined is behind the others")
	}

	holder := acquire(t, a, "id")
	got := make(chan highlander.Lease, 2)
	acquireNext := func(c *gossip.Cluster) {
		l, err := c.Acquire(t.Context(), "id", highlander.AcquireOptions{Meta: c.Node()})
		if err == nil { // or the test is over
			got <- l
		}
	}
	go acquireNext(a)
	for b.KnownWaiting("id") != 1 {
	}
	go acquireNext(b)
	for a.KnownWaiting("id") != 2 {
	}
	holder.Release(t.Context())
	receive(t, got, "the second lease")
	if h, err := a.Lookup(t.Context(), "id"); err != nil || h.Node != a.Node() {
		t.Errorf("the second lease went to %v, %v; want it on %s, which waited first", h, err, a.Node())
	}
}

// Trap 29 and complaint 18: who does not answer is looked for as long as it
// takes.
func TestAddressThatDoesNotAnswerIsTriedForEver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	late := bind(t, 0)
	addr := addrOf(late)
	late.Shutdown()
	c, err := w.tryJoin(t.Context(), bind(t, 0), "early", addr)
	if err != nil {
		t.Fatal(err)
	}
	w.see(1, c)
	other, err := w.tryJoin(t.Context(), bind(t, portOf(t, addr)), "late") // it does not look for anybody
	if err != nil {
		t.Fatal(err)
	}
	w.see(2, c, other)
}

func TestSeedThatDoesNotResolveIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.tryJoin(t.Context(), bind(t, 0), "n", "no-such..host") // two dots: no name server is asked, which may be slow
	if err == nil {
		t.Fatal("Join returned no error")
	}
	if text := err.Error(); !strings.HasPrefix(text, `gossip: Config.Join "no-such..host:7946": the host does not resolve: `) || strings.Contains(text, "\n") {
		t.Errorf("Join says %q", text)
	}
}

// One record that is missing keeps nobody from starting again.
func TestSeedThatDoesNotResolveIsNoMatterBesideOneThatDoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.join("a")
	second, err := w.tryJoinAs(t.Context(), w.config.Meeting(), bind(t, 0), "b", "no-such-host.invalid", first.Addr())
	if err != nil {
		t.Fatal(err)
	}
	w.see(2, first, second)
}

// Trap 31 and complaint 19: an address that another cluster has taken over does
// not merge the two.
func TestClustersWithDifferentLabelsDoNotMerge(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	blue := w.join("blue")
	w.config.Label = "green"
	green, err := w.tryJoin(t.Context(), bind(t, 0), "green", blue.Addr())
	if err != nil {
		t.Fatal(err)
	}
	strangers(t, w, blue, green)
}

func TestNodeWithTheWrongKeyStaysOutside(t *testing.T) {
	t.Parallel()
	for name, key := range map[string][][]byte{"another": {bytes.Repeat([]byte{2}, 16)}, "none": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.config.Keys = [][]byte{bytes.Repeat([]byte{1}, 32)}
			inside := w.join("inside")
			w.config.Keys = key
			outside, err := w.tryJoin(t.Context(), bind(t, 0), "outside", inside.Addr())
			if err != nil {
				t.Fatal(err)
			}
			strangers(t, w, inside, outside)
		})
	}
}

// strangers checks that b, which joins a, is another cluster, though it has
// knocked.
func strangers(t *testing.T, w *world, a, b *gossip.Cluster) {
	t.Helper()
	w.awaitLog("dropped what is not for this cluster", 1)
	first, second := acquire(t, a, "id"), acquire(t, b, "id")
	held(t, first)
	held(t, second)
	w.see(1, a, b)
	if a.Dropped() == 0 {
		t.Errorf("%s has dropped nothing", a.Node())
	}
}

// While keys are changed, some nodes have the new one in the first place and
// some in the second.
func TestKeysCanBeRotated(t *testing.T) {
	t.Parallel()
	old, young := bytes.Repeat([]byte{1}, 16), bytes.Repeat([]byte{2}, 32)
	w := newWorld(t)
	w.config.Keys = [][]byte{old, young}
	a := w.join("a")
	w.config.Keys = [][]byte{young, old}
	b := w.join("b", a)
	w.see(2, a, b)
	acquire(t, a, "id").Release(t.Context())
	acquire(t, b, "id").Release(t.Context())
	w.dropsNothingFor("decrypt")
}

func TestObserverSeesAndIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nodes := w.cluster(2)
	acquire(t, nodes[0], "before")
	w.config.Observer = true
	observer := w.join("observer", nodes[0])
	w.see(3, append(nodes, observer)...)
	acquire(t, nodes[1], "after")
	w.awaitHolder(observer, "before", nodes[0])
	w.awaitHolder(observer, "after", nodes[1])
	if holders, err := observer.Holders(t.Context()); err != nil || len(holders) != 2 {
		t.Errorf("the observer sees %v, %v; want two holders", holders, err)
	}
	for _, m := range observer.Members() {
		if m.Observer != (m.Name == observer.Node()) || m.Self != m.Observer {
			t.Errorf("the observer sees %+v", m)
		}
	}
	_, err := observer.Acquire(t.Context(), "id", highlander.AcquireOptions{})
	if want := `acquire "id": this node is an observer; it cannot hold an id`; err == nil || err.Error() != want {
		t.Errorf("Acquire on an observer: %v, want %s", err, want)
	}

	// Nothing of what an observer says is heard from now on: votes go on.
	w.cut([]*gossip.Cluster{observer}, nodes)
	acquire(t, nodes[0], "while it is cut off")
}

// awaitHolder waits until c sees that other holds id.
func (w *world) awaitHolder(c *gossip.Cluster, id string, other *gossip.Cluster) {
	w.t.Helper()
	for end := time.Now().Add(patience); ; {
		h, err := c.Lookup(w.t.Context(), id)
		if err == nil && h.Node == other.Node() {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("%s sees %+v, %v as the holder of %q, want %s", c.Node(), h, err, id, other.Node())
		}
	}
}

// The one that goes says so: nobody has to find out. There is no failure
// detector, and a tripwire would show in the log.
func TestCloseHandsOverAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nodes := w.cluster(3)
	acquire(t, nodes[0], "id")
	got := make(chan highlander.Lease, 1)
	go func() {
		l, err := nodes[1].Acquire(t.Context(), "id", highlander.AcquireOptions{})
		if err != nil {
			t.Error(err)
		}
		got <- l
	}()
	nodes[0].Close()
	held(t, receive(t, got, "the lease"))
	w.see(2, nodes[1:]...)
	if gone := w.logged("is gone"); len(gone) > 0 {
		t.Errorf("the node that left was taken for dead: %s", gone)
	}
}

// A peer that takes nothing any more does not hold up Close.
func TestCloseDoesNotWaitForACutOffNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nodes := w.cluster(2)
	w.cut(nodes[:1], nodes[1:])
	acquireLater := make(chan error, 1)
	go func() {
		_, err := nodes[0].Acquire(context.Background(), "id", highlander.AcquireOptions{})
		acquireLater <- err
	}()
	nodes[0].Close()
	if err := receive(t, acquireLater, "Acquire to end"); !errors.Is(err, highlander.ErrClosed) {
		t.Errorf("Acquire on a node that closes: %v, want ErrClosed", err)
	}
}
