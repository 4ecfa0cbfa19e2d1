package gossip_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"highlander"
	"highlander/gossip"
	"highlander/internal/boottime"
	"highlander/internal/netfault"
	"highlander/internal/pulse"
)

const (
	shortTTL  = 6 * time.Second // one lost beat, and a busy machine, leave time for the next
	shortStop = 1500 * time.Millisecond
)

// quorumWorld is a world in quorum mode: leases take two of three voters.
func quorumWorld(t testing.TB) *world { return inQuorumMode(newWorld(t)) }

func inQuorumMode(w *world) *world {
	w.config = gossip.Config{Quorum: 2, TTL: shortTTL}
	return w
}

// acquireToStop acquires a lease whose holder takes shortStop to stop.
func acquireToStop(t testing.TB, c *gossip.Cluster, id string) highlander.Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l, err := c.Acquire(ctx, id, highlander.AcquireOptions{StopWithin: shortStop})
	if err != nil {
		t.Fatalf("%s: acquire %q: %v", c.Node(), id, err)
	}
	return l
}

// grant is a lease and when it was handed out.
type grant struct {
	node  *gossip.Cluster
	lease highlander.Lease
	at    time.Time
}

// compete has nodes acquire an id, until the test ends.
func compete(t testing.TB, id string, nodes ...*gossip.Cluster) <-chan grant {
	granted := make(chan grant, len(nodes))
	for _, c := range nodes {
		go func() {
			l, err := c.Acquire(t.Context(), id, highlander.AcquireOptions{StopWithin: shortStop})
			if err == nil {
				granted <- grant{c, l, time.Now()}
			}
		}()
	}
	return granted
}

// The side with the quorum goes on, and not before the other side's holder was
// told and its lease has run out.
func TestQuorumMinorityIsToldBeforeTheMajorityStarts(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		noise netfault.Noise
		cut   func(w *world, one, rest []*gossip.Cluster)
	}{
		"cut off":            {netfault.Noise{}, (*world).cut},
		"cut off, noisy":     {netfault.Noise{Lost: 0.1, Doubled: 0.2, MaxDelay: 20 * time.Millisecond}, (*world).cut},
		"mute":               {netfault.Noise{}, (*world).cutOneWay},
		"deaf, but not mute": {netfault.Noise{}, func(w *world, one, rest []*gossip.Cluster) { w.cutOneWay(rest, one) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := inQuorumMode(watchfulWorld(t))
			nodes := w.quorum("a", "b", "c")
			for _, c := range nodes {
				w.faults[c].SetNoise(test.noise)
			}
			var last uint64
			for round := range 3 {
				id := fmt.Sprint("id", round)
				holder, others := nodes[round], pickOthers(nodes, nodes[round])
				l := acquireToStop(t, holder, id)
				next := compete(t, id, others...)
				test.cut(w, []*gossip.Cluster{holder}, others)
				toldInTime(t, l)
				got := receive(t, next, "the majority's lease")
				if early := l.Expires().Sub(got.at); early > 0 {
					t.Errorf("the majority has the lease %v before the minority's has run out", early)
				}
				if l.Token() <= last || got.lease.Token() <= l.Token() {
					t.Errorf("tokens %d, %d, %d do not grow", last, l.Token(), got.lease.Token())
				}
				w.heal()
				w.see(3, nodes...)
				held(t, got.lease)
				got.lease.Release(t.Context())
			}
		})
	}
}

// toldInTime waits until a lease is lost, and checks that this was not too late.
// What the machine is late should not count, nor what this goroutine is to notice:
// half the time is enough.
func toldInTime(t testing.TB, l highlander.Lease) {
	t.Helper()
	beat := pulse.Start()
	defer beat.Stop()
	receive(t, l.Done(), "the holder to be told")
	told, ends := time.Now(), l.Expires() // the latter asks the agent, which may be writing its log
	late := beat.Late(ends.Add(-shortStop))
	if left := ends.Sub(told); left+late < shortStop/2 {
		t.Errorf("the holder was told %v before the lease runs out, want %v; the machine was late by %v", left, shortStop, late)
	}
	if err := l.Err(); !errors.Is(err, highlander.ErrLeaseLost) {
		t.Errorf("the lease ended with %v, want ErrLeaseLost", err)
	}
}

func pickOthers(nodes []*gossip.Cluster, c *gossip.Cluster) []*gossip.Cluster {
	_, others := pick(nodes, c.Node())
	return others
}

// Children under all kinds of cuts: never two.
func TestQuorumNeverRunsTwo(t *testing.T) {
	t.Parallel()
	w := inQuorumMode(watchfulWorld(t))
	nodes := w.quorum("a", "b", "c")
	s := newStage(t, "id")
	s.shutdown = shortStop
	for _, c := range nodes {
		s.wrap(c)
	}
	for range 2 {
		for _, cut := range []func(one, rest []*gossip.Cluster){
			w.cut,
			w.cutOneWay,
			func(one, rest []*gossip.Cluster) { w.cutOneWay(rest, one) },
		} {
			holder, others := pick(nodes, s.oneRuns())
			cut([]*gossip.Cluster{holder}, others)
			s.await("another one takes over", func() bool { return len(s.running) == 1 && !s.running[holder.Node()] })
			w.heal()
			w.see(3, nodes...)
		}
	}
	s.oneRuns()
	s.never(1)
	for _, c := range nodes {
		for _, cause := range s.endedBy(c.Node()) {
			if !errors.Is(cause, highlander.ErrLeaseLost) {
				t.Errorf("the child on %s ended with %v, want ErrLeaseLost", c.Node(), cause)
			}
		}
	}
}

// Without a quorum nothing starts, and the log says why.
func TestQuorumLostAndFound(t *testing.T) {
	t.Parallel()
	w := inQuorumMode(watchfulWorld(t))
	nodes := w.quorum("a", "b", "c")
	l := acquireToStop(t, nodes[0], "id")
	w.cut(nodes, nodes)
	toldInTime(t, l)
	w.see(1, nodes...)
	w.awaitLog("no quorum: ", 3)
	for _, line := range w.logged("no quorum: ") {
		if !strings.Contains(line, "level=WARN") {
			t.Errorf("the log says %s", line)
		}
	}
	w.awaitLog("the lease was not renewed in time; stopping", 1) // the holder is told first
	told := w.logged("the lease was not renewed in time; stopping")
	if len(told) != 1 {
		t.Fatalf("the log says %q", told)
	}
	if !strings.Contains(told[0], " votes=1 needed=2 ") || !regexp.MustCompile(`(silent|out_of_view)=("\[b c\]"|\[b\] .*\[c\]|\[c\] .*\[b\])\n`).MatchString(told[0]) {
		t.Errorf("the log does not say who did not answer: %s", told[0])
	}
	left := regexp.MustCompile(` left=(\S+)`).FindStringSubmatch(told[0])
	if left == nil {
		t.Fatalf("the log says %s", told[0])
	}
	if d, err := time.ParseDuration(left[1]); err != nil || d%(10*time.Millisecond) != 0 {
		t.Errorf("what is left is not in hundredths of a second: %s", told[0])
	}
	granted := compete(t, "id", nodes...)
	lasts(shortTTL * 5 / 4) // no vote is from before
	select {
	case got := <-granted:
		t.Errorf("%s has got a lease alone", got.node.Node())
	default:
	}
	w.heal()
	held(t, receive(t, granted, "a lease").lease)
	w.awaitLog("the quorum is back", 3)
}

// lasts lets a time pass in which something must not happen.
func lasts(d time.Duration) { <-time.After(d) }

// A voter that starts anew within the TTL has forgotten for whom it has voted: it
// votes for nobody until that vote has run out. The node that asks for its vote
// does not know that there was another start of it.
func TestQuorumRestartOfAVoterInsideTheTTL(t *testing.T) {
	t.Parallel()
	w := inQuorumMode(watchfulWorld(t))
	nodes := w.quorum("a", "b", "c")
	a, b, c := nodes[0], nodes[1], nodes[2]
	w.cut(nodes[:2], nodes[2:])
	w.see(1, c)
	w.see(2, a, b)
	l := acquireToStop(t, a, "id")
	next := compete(t, "id", c)
	b.Crash()
	again := bind(t, portOf(t, b.Addr()))
	again.Cut(a.Addr())
	w.faults[a].Cut(b.Addr(), c.Addr())
	w.faults[c].Cut(a.Addr())
	if _, err := w.tryJoin(t.Context(), again, "b", c.Addr()); err != nil {
		t.Fatal(err)
	}
	toldInTime(t, l)
	got := receive(t, next, "the other side's lease")
	if early := l.Expires().Sub(got.at); early > 0 {
		t.Errorf("the lease was given out %v before the last one has run out", early)
	}
}

// A machine that was suspended: the clock of its leases has gone on, Go's timers
// have not.
func TestQuorumLeaseHasEndedWhenTheMachineWakes(t *testing.T) {
	t.Parallel()
	w := quorumWorld(t)
	var slept atomic.Int64
	w.clocks = map[string]func() time.Duration{"a": func() time.Duration { return boottime.Now() + time.Duration(slept.Load()) }}
	nodes := w.quorum("a", "b", "c")
	l := acquireToStop(t, nodes[0], "id")
	next := compete(t, "id", nodes[1])
	slept.Store(int64(time.Hour))
	receive(t, l.Done(), "the holder to be told")
	if err := l.Err(); !errors.Is(err, highlander.ErrLeaseLost) {
		t.Errorf("the lease ended with %v, want ErrLeaseLost", err)
	}
	if late := time.Since(l.Expires()); late < time.Hour-shortTTL {
		t.Errorf("the lease has run out %v ago, want about an hour", late)
	}
	got := receive(t, next, "another node's lease")
	got.lease.Release(t.Context())
	held(t, acquireToStop(t, nodes[0], "id")) // the one that slept takes part again
}

// A lease that StopWithin does not fit into is refused with the arithmetic.
func TestQuorumStopWithinMustFit(t *testing.T) {
	t.Parallel()
	w := quorumWorld(t)
	w.config.TTL = 3 * time.Second
	nodes := w.quorum("a", "b")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := nodes[0].Acquire(ctx, "id", highlander.AcquireOptions{StopWithin: highlander.DefaultShutdown})
	want := `acquire "id": AcquireOptions.StopWithin: TTL 3s is too short to stop within 5s: less 60ms for clocks and 1.5s for two renewals it leaves 1.44s; ` +
		`a TTL of at least 10.5s, or at most 1.44s to stop, is needed`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// A fourth voter of three could make a second quorum, so there is none any more:
// what is held stays, and nothing new is.
func TestQuorumOneVoterTooMany(t *testing.T) {
	t.Parallel()
	w := quorumWorld(t)
	nodes := w.quorum("a", "b", "c")
	l := acquireToStop(t, nodes[0], "before")
	fourth := w.join("d", nodes...)
	w.see(4, append(nodes, fourth)...)
	granted := compete(t, "after", nodes[0], fourth)
	w.awaitLog("there are more voters than the cluster is configured for", 4)
	for _, line := range w.logged("there are more voters") {
		if !strings.Contains(line, "level=ERROR") || !strings.Contains(line, `in_view="[a b c d]" gone=[]`) || !strings.Contains(line, "configured=3") {
			t.Errorf("the log says %s", line)
		}
	}
	held(t, l)
	select {
	case got := <-granted:
		t.Errorf("%s has got a lease", got.node.Node())
	default:
	}
	fourth.Close()
	held(t, receive(t, granted, "a lease without the fourth").lease)
	w.awaitLog("there are no more voters than the cluster is configured for now", 3)
}

// Of two nodes with one name, neither counts: one may have forgotten for whom the
// other has voted.
func TestQuorumTwoNodesWithOneName(t *testing.T) {
	t.Parallel()
	w := quorumWorld(t)
	nodes := w.quorum("a", "b", "c")
	twin := w.join("c", nodes...)
	w.see(4, append(nodes, twin)...)
	held(t, acquireToStop(t, nodes[0], "id")) // a and b are enough
	nodes[1].Close()
	granted := compete(t, "another", nodes[0], nodes[2], twin)
	w.awaitLog("nodes share a name", 3)
	for _, line := range w.logged("nodes share a name") {
		if !strings.Contains(line, "level=ERROR") || !strings.Contains(line, "names=[c]") {
			t.Errorf("the log says %s", line)
		}
	}
	select {
	case got := <-granted:
		t.Errorf("%s has got a lease", got.node.Node())
	default:
	}
	twin.Close()
	held(t, receive(t, granted, "a lease without the twin").lease)
}

// Nodes of other rules do not become members, and do not begin beside those
// that they have met.
func TestQuorumNodesOfOtherRulesKeepApart(t *testing.T) {
	t.Parallel()
	for name, other := range map[string]gossip.Config{
		"available mode":        {},
		"quorum 2 of 2, TTL 3s": {Quorum: 2, Expect: 2, TTL: 3 * time.Second},
		"quorum 2 of 3, TTL 2s": {Quorum: 2, TTL: 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := quorumWorld(t)
			w.config.TTL = 3 * time.Second
			nodes := w.quorum("a", "b")
			ctx, cancel := context.WithCancelCause(t.Context())
			enough := errors.New("enough")
			failed := make(chan error, 1)
			go func() {
				_, err := w.tryJoinAs(ctx, other, bind(t, 0), "stranger", addrsOf(nodes)...)
				failed <- err
			}()
			w.awaitLog("refused a node whose settings are others", 3)
			lasts(2 * gossip.SettleTime)
			select {
			case err := <-failed:
				t.Fatalf("Join of the stranger returned %v", err)
			default:
			}
			cancel(enough)
			err := receive(t, failed, "Join of the stranger to return")
			if !errors.Is(err, enough) || !strings.Contains(err.Error(), "runs quorum 2 of 3, TTL 3s; this one runs "+name) {
				t.Errorf("Join of the stranger returned %v", err)
			}
			for _, line := range w.logged("refused a node") {
				if !strings.Contains(line, "level=ERROR") || !strings.Contains(line, "quorum 2 of 3, TTL 3s") || !strings.Contains(line, name) {
					t.Errorf("the log says %s", line)
				}
			}
			w.see(2, nodes...)
			held(t, acquire(t, nodes[0], "id"))
		})
	}
}

// An observer need not know the settings, and sees who holds what for as long as
// it looks.
func TestQuorumObserver(t *testing.T) {
	t.Parallel()
	w := quorumWorld(t)
	nodes := w.quorum("a", "b", "c")
	l := acquireToStop(t, nodes[0], "id")
	w.config = gossip.Config{Observer: true}
	observer := w.join("observer", nodes...)
	w.awaitHolder(observer, "id", nodes[0])
	lasts(7 * time.Second) // in available mode, who does not answer is silent by then
	if h, err := observer.Lookup(t.Context(), "id"); err != nil || h.Node != nodes[0].Node() {
		t.Errorf("the observer sees %+v, %v; want %s", h, err, nodes[0].Node())
	}
	if want := (gossip.Mode{Quorum: 2, Voters: 3, TTL: shortTTL, InView: 3}); len(observer.Modes()) != 1 || observer.Modes()[0] != want {
		t.Errorf("the observer sees the modes %+v, want %+v", observer.Modes(), want)
	}
	held(t, l)
}

// Beats that do not get through in packets go on streams.
func TestQuorumWithoutPackets(t *testing.T) {
	t.Parallel()
	w := quorumWorld(t)
	nodes := w.quorum("a", "b", "c")
	l := acquireToStop(t, nodes[0], "before")
	for _, c := range nodes {
		w.faults[c].SetNoise(netfault.Noise{Lost: 1})
	}
	lasts(2 * shortTTL)
	held(t, l)
	held(t, acquireToStop(t, nodes[1], "after"))
}

// Beats are not late because thousands of States are on their way.
func TestQuorumLeaseOutlastsManyClaims(t *testing.T) {
	t.Parallel()
	w := quorumWorld(t)
	nodes := w.quorum("a", "b", "c")
	l := acquireToStop(t, nodes[0], "id")
	for range 3 {
		var leases []highlander.Lease
		granted := make(chan highlander.Lease)
		for i := range manyIDs {
			go func() {
				if lease, err := nodes[1].Acquire(t.Context(), fmt.Sprint("many", i), highlander.AcquireOptions{}); err == nil {
					granted <- lease
				}
			}()
		}
		for range manyIDs {
			leases = append(leases, receive(t, granted, "one of many leases"))
		}
		for _, lease := range leases {
			held(t, lease)
			lease.Release(t.Context())
		}
	}
	held(t, l)
}

func TestQuorumJoinWaitsForTheQuorum(t *testing.T) {
	t.Parallel()
	w := quorumWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := w.tryJoin(ctx, bind(t, 0), "alone")
	if want := "gossip: join: 1 of 2 nodes found: "; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("Join returned %v, want %s", err, want)
	}
}
