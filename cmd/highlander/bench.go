package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/spf13/cobra"

	"highlander"
	"highlander/gossip"
)

const (
	benchID     = "highlander-bench"
	benchNodes  = 3
	stepTimeout = 60 * time.Second // for anything a measurement waits for
	restBetween = 20 * time.Millisecond
	idleFor     = 10 * time.Second
	tidyWithin  = 10 * time.Second

	// The failure detector takes so long to bury a node. Killing faster than that
	// measures a cluster with more dead nodes than live ones.
	restAfterKill = 2 * time.Second

	swarmSize    = 50
	slowestShare = 10 // slow measurements are repeated this much less often
)

func newBenchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure take-over and throughput",
		Long: `Bench starts three node processes on this machine and measures how long it takes
from the end of a child on one node to its start on another. Without --cluster
the nodes form an embedded cluster of their own on loopback. That goes for quorum
mode as well, as a cluster has so many voters and no more: give the quorum, and
neither address nor join. On a server the nodes have a schema (PostgreSQL), a
prefix below the given one (etcd) or ids (Kubernetes) of their own, which are
removed at the end: that takes the right to create a schema, or to delete Lease
objects. Where a kill waits for the end of a lease, ttl= says how long.`,
		Example: `  highlander bench
  highlander bench --cluster 'gossip://?quorum=2&ttl=3s'
  highlander bench --cluster 'etcd://127.0.0.1:2379?ttl=2s'
  highlander bench --rounds 10 --only graceful,kill
  highlander bench --json > figures.json`,
		Args: noArgs,
	}
	b := &bench{}
	url := addClusterFlag(cmd)
	cmd.Flags().IntVar(&b.rounds, "rounds", 50, "how often the fast measurements are made; the slow ones a tenth of that, and of 3 to 30 rounds 3")
	only := cmd.Flags().StringSlice("only", nil, "measure only these: "+strings.Join(measureNames(), ", "))
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if b.rounds < 1 {
			return usageErrorf("--rounds %d: at least 1 is needed", b.rounds)
		}
		at, err := url.parse()
		if err != nil {
			return err
		}
		if err := b.setCluster(at); err != nil {
			return err
		}
		if err := b.checkOnly(*only, at.source); err != nil {
			return err
		}
		b.progress = newProgress(cmd.ErrOrStderr())
		var results *report
		err = untilSignal(cmd.Context(), func(ctx context.Context) (err error) {
			if err := b.try(ctx, at); err != nil {
				return err
			}
			results, err = b.run(ctx, *only)
			return errors.Join(err, b.tidyUp(ctx))
		})
		b.progress.done()
		if err != nil {
			return err
		}
		if *asJSON {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(results)
		}
		return results.print(cmd.OutOrStdout())
	}
	return cmd
}

// setCluster takes the cluster to measure.
func (b *bench) setCluster(at endpoint) error {
	plan, err := at.measured()
	if err != nil {
		return at.usable(err)
	}
	b.benchPlan = plan
	if !plan.own {
		b.url = at.url
	}
	return nil
}

// checkOnly says which of the names that were asked for cannot be measured.
func (b *bench) checkOnly(only []string, source string) error {
	for _, name := range only {
		i := slices.IndexFunc(measurements(), func(m measurement) bool { return m.name == name })
		if i < 0 {
			return usageErrorf("--only %q: %s are allowed", name, strings.Join(measureNames(), ", "))
		}
		m := measurements()[i]
		switch {
		case m.signals && !canFreeze:
			return usageErrorf("--only %s: there is no SIGSTOP on this system", name)
		case m.kinds&b.kind == 0 && m.kinds&b.kind.other() != 0 && b.kind == benchQuorum:
			return usageErrorf("--only %s: that is for available mode; leave quorum out of %s", name, source)
		case m.kinds&b.kind == 0 && m.kinds&b.kind.other() != 0:
			return usageErrorf("--only %s: that is for quorum mode; give --cluster 'gossip://?quorum=2'", name)
		case m.kinds&b.kind == 0:
			return usageErrorf("--only %s: that cannot be measured on %s; %s are allowed there", name, source, strings.Join(b.makeable(), ", "))
		case m.own && b.url != "":
			return usageErrorf("--only %s needs a cluster of its own; leave %s out", name, source)
		}
	}
	return nil
}

// bench makes measurements, each in a fleet of its own.
type bench struct {
	benchPlan
	url      string // of the user's cluster; empty: one of the bench's own
	rounds   int
	progress *progress
}

// benchPlan is how bench measures a cluster.
type benchPlan struct {
	kind    benchKind
	own     bool      // the nodes form a cluster of their own
	mode    fleetMode // of that one
	id      string    // what the nodes compete for, or the beginning of it
	space   string    // of the nodes' own, on the user's server
	cluster string    // for the report; empty: the user's URL

	slowKill      bool // a kill waits for the end of a lease
	idleIDs       int
	restAfterKill time.Duration
	restAtStart   time.Duration // until all nodes of a fleet are connected
	patience      time.Duration // in addition to stepTimeout

	cleanUp func(context.Context) error // if there is something to
}

// benchKind is a kind of cluster that a measurement may be for.
type benchKind uint8

const (
	benchAvailable benchKind = 1 << iota
	benchQuorum

	benchServer     // clusters on servers
	benchKubernetes // with one object an id

	benchGossip  = benchAvailable | benchQuorum
	benchServers = benchServer | benchKubernetes
	benchAll     = benchGossip | benchServers
)

// other returns the other mode of the embedded cluster.
func (k benchKind) other() benchKind {
	switch k {
	case benchAvailable:
		return benchQuorum
	case benchQuorum:
		return benchAvailable
	}
	return 0
}

// measurement is something to measure: measure returns one figure a round.
type measurement struct {
	name    string
	what    string
	slow    bool // rounds / slowestShare
	own     bool // only in a cluster of the bench's own
	signals bool // only where there is SIGSTOP
	kill    bool // waits for a kill to be noticed
	kinds   benchKind
	measure func(b *bench, ctx context.Context, rounds int) ([]result, error)
}

// makes says whether the bench can make a measurement.
func (b *bench) makes(m measurement) bool {
	return m.kinds&b.kind != 0 && !(m.own && b.url != "") && !(m.signals && !canFreeze)
}

// makeable returns the names of what the bench can measure.
func (b *bench) makeable() (names []string) {
	for _, m := range measurements() {
		if b.makes(m) {
			names = append(names, m.name)
		}
	}
	return names
}

func measurements() []measurement {
	return []measurement{
		{name: "graceful", what: "graceful hand-over, one id: child returned -> running elsewhere", kinds: benchAll, measure: (*bench).graceful},
		{name: "kill", what: "kill -9, one id: signal sent -> running elsewhere", kill: true, kinds: benchAvailable | benchServers, measure: (*bench).killed},
		{name: "crash", what: "kill -9 and nobody to testify, one id: signal sent -> running elsewhere", slow: true, kinds: benchQuorum, measure: (*bench).killed},
		{name: "freeze", what: "SIGSTOP of the holder: signal sent -> running elsewhere", slow: true, signals: true, kinds: benchAll, measure: (*bench).frozen},
		{name: "split", what: "netsplit: healed -> one left", slow: true, own: true, kinds: benchAvailable, measure: (*bench).healed},
		{name: "cut", what: "holder cut off -> running on the other side", slow: true, own: true, kinds: benchQuorum, measure: (*bench).cutOff},
		{name: "quorum-kill", what: fmt.Sprintf("kill -9 of highlander run, quorum 2 of 3, TTL %v: signal sent -> command running elsewhere, by the guard's certificate", runTTL), slow: true, own: true, signals: true, kinds: benchGossip, measure: (*bench).quorumKill},
		{name: "quorum-kill-guard", what: "the same for highlander and its guard at once: nobody certifies it", slow: true, own: true, signals: true, kinds: benchGossip, measure: (*bench).quorumKillBoth},
		{name: "100", what: "100 ids", slow: true, kinds: benchKubernetes, measure: func(b *bench, ctx context.Context, rounds int) ([]result, error) { return b.many(ctx, rounds, 100) }},
		{name: "1000", what: "1,000 ids", slow: true, kinds: benchGossip | benchServer, measure: func(b *bench, ctx context.Context, rounds int) ([]result, error) { return b.many(ctx, rounds, 1000) }},
		{name: "10000", what: "10,000 ids", slow: true, kinds: benchGossip, measure: func(b *bench, ctx context.Context, rounds int) ([]result, error) { return b.many(ctx, rounds, 10000) }},
		{name: "idle", what: "idle node that holds many ids", kinds: benchAll, measure: func(b *bench, ctx context.Context, _ int) ([]result, error) { return b.idle(ctx) }},
		{name: "swarm", what: "50 nodes that start together, in one process: first Join -> child running, all 50 in view", slow: true, own: true, kinds: benchAvailable, measure: (*bench).swarm},
	}
}

func measureNames() []string {
	var names []string
	for _, m := range measurements() {
		names = append(names, m.name)
	}
	return names
}

func (b *bench) run(ctx context.Context, only []string) (*report, error) {
	rep := &report{Machine: machine(), Version: version(), Cluster: cmp.Or(b.cluster, b.url)}
	for _, m := range measurements() {
		if len(only) > 0 && !slices.Contains(only, m.name) || !b.makes(m) {
			continue
		}
		rounds := b.rounds
		if m.slow || m.kill && b.slowKill {
			rounds = min(rounds, max(3, rounds/slowestShare))
		}
		b.progress.step("measuring %s (%s)", m.name, m.what)
		results, err := m.measure(b, ctx, rounds)
		if err != nil {
			return nil, fmt.Errorf("bench %s: %w", m.name, err)
		}
		for i := range results {
			if results[i].What == "" {
				results[i].What = m.what
			}
			results[i].Name = m.name
		}
		rep.Results = append(rep.Results, results...)
	}
	return rep, nil
}

// tidyUp removes what the nodes have left at the server, also after a signal.
func (b *bench) tidyUp(ctx context.Context) error {
	if b.cleanUp == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyWithin)
	defer cancel()
	if err := b.cleanUp(ctx); err != nil {
		return fmt.Errorf("what bench has made at the server, %s, could not be removed: %w", cmp.Or(b.space, b.id), err)
	}
	return nil
}

// withFleet runs f in a fleet of three nodes, or of as many as there are voters.
func (b *bench) withFleet(ctx context.Context, quiet bool, f func(*fleet) error) error {
	fl := newFleet(b.url, quiet)
	fl.mode, fl.space = b.mode, b.space
	defer fl.close()
	if err := fl.startAll(ctx, benchNodes); err != nil {
		return err
	}
	return f(fl)
}

// repeat makes rounds of round in one fleet and collects the figures.
func (b *bench) repeat(ctx context.Context, rounds int, round func(context.Context, *fleet) (time.Duration, error)) ([]result, error) {
	var figures []time.Duration
	err := b.withFleet(ctx, false, func(f *fleet) error {
		if err := f.order(nodeOrder{Op: opWrap, ID: b.id}, f.live()...); err != nil {
			return err
		}
		rest := max(restBetween, b.restAtStart)
		for i := range rounds {
			ctx, cancel := context.WithTimeout(ctx, stepTimeout+b.patience)
			d, err := b.oneRound(ctx, f, rest, round)
			rest = restBetween
			cancel()
			if err != nil {
				return fmt.Errorf("round %d: %w", i+1, err)
			}
			figures = append(figures, d)
			b.progress.update("round %d of %d: %v", i+1, rounds, d)
		}
		return nil
	})
	return []result{summarize(figures)}, err
}

func (b *bench) oneRound(ctx context.Context, f *fleet, rest time.Duration, round func(context.Context, *fleet) (time.Duration, error)) (time.Duration, error) {
	if err := f.until(ctx, "one holder", func() bool { return f.one(b.id) != nil }); err != nil {
		return 0, err
	}
	if err := f.whole(ctx); err != nil {
		return 0, err
	}
	if err := f.during(ctx, rest); err != nil { // the others have queued up
		return 0, err
	}
	return round(ctx, f)
}

func (b *bench) graceful(ctx context.Context, rounds int) ([]result, error) {
	return b.repeat(ctx, rounds, func(ctx context.Context, f *fleet) (time.Duration, error) {
		holder := f.one(b.id)
		delete(holder.stopped, b.id)
		if err := f.order(nodeOrder{Op: opStop, ID: b.id}, holder); err != nil {
			return 0, err
		}
		err := f.until(ctx, "the next holder", func() bool {
			_, stopped := holder.stopped[b.id]
			return stopped && f.one(b.id) != nil
		})
		if err != nil {
			return 0, err
		}
		next := f.one(b.id)
		return next.running[b.id] - holder.stopped[b.id].At, f.order(nodeOrder{Op: opWrap, ID: b.id}, holder)
	})
}

func (b *bench) killed(ctx context.Context, rounds int) ([]result, error) {
	return b.repeat(ctx, rounds, func(ctx context.Context, f *fleet) (time.Duration, error) {
		holder := f.one(b.id)
		at := f.kill(holder)
		if err := f.until(ctx, "the next holder", func() bool { return f.one(b.id) != nil }); err != nil {
			return 0, err
		}
		took := f.one(b.id).running[b.id] - at
		fresh, err := f.replace(ctx, holder)
		if err != nil {
			return 0, err
		}
		if err := f.order(nodeOrder{Op: opWrap, ID: b.id}, fresh); err != nil {
			return 0, err
		}
		return took, f.during(ctx, b.restAfterKill)
	})
}

func (b *bench) frozen(ctx context.Context, rounds int) ([]result, error) {
	return b.repeat(ctx, rounds, func(ctx context.Context, f *fleet) (time.Duration, error) {
		holder := f.one(b.id)
		at, err := f.freeze(holder)
		if err != nil {
			return 0, err
		}
		err = f.until(ctx, "the next holder", func() bool { return len(f.holders(b.id)) == 2 })
		if err != nil {
			return 0, err
		}
		next := f.holders(b.id)[0]
		if next == holder {
			next = f.holders(b.id)[1]
		}
		took := next.running[b.id] - at
		if err := f.thaw(holder); err != nil {
			return 0, err
		}
		return took, f.until(ctx, "the woken holder to stop", func() bool { return f.one(b.id) == next })
	})
}

func (b *bench) healed(ctx context.Context, rounds int) ([]result, error) {
	return b.repeat(ctx, rounds, func(ctx context.Context, f *fleet) (time.Duration, error) {
		holder := f.one(b.id)
		if err := f.split(holder); err != nil {
			return 0, err
		}
		if err := f.until(ctx, "a holder on each side", func() bool { return len(f.holders(b.id)) == 2 }); err != nil {
			return 0, err
		}
		if err := f.apart(ctx, holder); err != nil {
			return 0, err
		}
		delete(holder.stopped, b.id)
		at := monotonicNow()
		if err := f.heal(); err != nil {
			return 0, err
		}
		if err := f.until(ctx, "one holder", func() bool { return f.one(b.id) != nil }); err != nil {
			return 0, err
		}
		stopped, ok := holder.stopped[b.id]
		if !ok {
			return 0, fmt.Errorf("the holder on the smaller side was kept")
		}
		return stopped.At - at, nil
	})
}

// cutOff measures how long the larger side of a netsplit waits for the lease of
// the smaller one to run out.
func (b *bench) cutOff(ctx context.Context, rounds int) ([]result, error) {
	return b.repeat(ctx, rounds, func(ctx context.Context, f *fleet) (time.Duration, error) {
		holder := f.one(b.id)
		delete(holder.stopped, b.id)
		at := monotonicNow()
		if err := f.split(holder); err != nil {
			return 0, err
		}
		err := f.until(ctx, "a holder on the other side", func() bool {
			_, stopped := holder.stopped[b.id]
			return stopped && f.one(b.id) != nil
		})
		if err != nil {
			return 0, err
		}
		started := f.one(b.id).running[b.id]
		if overlap := holder.stopped[b.id].At - started; overlap > 0 {
			return 0, fmt.Errorf("the child ran on both sides for %v", overlap)
		}
		return started - at, f.heal()
	})
}

// many measures how long it takes until count children run on one node of
// three, and, after that node was killed, on the other two.
func (b *bench) many(ctx context.Context, rounds, count int) ([]result, error) {
	var starts, takeovers []time.Duration
	for i := range rounds {
		ctx, cancel := context.WithTimeout(ctx, 2*stepTimeout+b.patience)
		err := b.withFleet(ctx, true, func(f *fleet) error {
			holder, others := f.live()[0], f.live()[1:]
			// On a server, the ids of the round before are held until their leases run out.
			id := fmt.Sprintf("%s/%d", b.id, i)
			took, err := b.startMany(ctx, f, holder, id, count)
			if err != nil {
				return err
			}
			starts = append(starts, took)
			if err := b.queueMany(ctx, f, others, id, count); err != nil {
				return err
			}
			at := f.kill(holder)
			running := func() int { return others[0].count + others[1].count }
			if err := f.until(ctx, "all ids to be taken over", func() bool { return running() == count }); err != nil {
				return fmt.Errorf("%w (%d of %d run)", err, running(), count)
			}
			takeovers = append(takeovers, max(others[0].counted, others[1].counted)-at)
			b.progress.update("round %d of %d: start %v, take-over %v", i+1, rounds, took, takeovers[i])
			return nil
		})
		cancel()
		if err != nil {
			return nil, err
		}
	}
	start, takeover := summarize(starts), summarize(takeovers)
	ids := thousands(count) + " ids"
	start.What = ids + ", start: order given to one node -> all run there"
	takeover.What = ids + ", take-over: kill -9 of their node -> all run on the other two"
	return []result{start, takeover}, nil
}

func (b *bench) startMany(ctx context.Context, f *fleet, n *nodeProcess, id string, count int) (time.Duration, error) {
	at := monotonicNow()
	if err := f.order(nodeOrder{Op: opWrap, ID: id, Count: count}, n); err != nil {
		return 0, err
	}
	err := f.until(ctx, "all ids to run", func() bool { return n.count == count })
	return n.counted - at, err
}

// queueMany has the other nodes wait for the ids, too, and gives them time to
// queue up.
func (b *bench) queueMany(ctx context.Context, f *fleet, others []*nodeProcess, id string, count int) error {
	if err := f.order(nodeOrder{Op: opWrap, ID: id, Count: count}, others...); err != nil {
		return err
	}
	return f.during(ctx, 3*time.Second)
}

// idle measures what a node costs that holds many ids while nothing happens.
func (b *bench) idle(ctx context.Context) ([]result, error) {
	id, count := b.id+"/idle", b.idleIDs
	var cpu, rss result
	err := b.withFleet(ctx, true, func(f *fleet) error {
		holder, others := f.live()[0], f.live()[1:]
		if _, err := b.startMany(ctx, f, holder, id, count); err != nil {
			return err
		}
		if err := b.queueMany(ctx, f, others, id, count); err != nil {
			return err
		}
		if err := f.order(nodeOrder{Op: opTidy}, f.live()...); err != nil {
			return err
		}
		before, err := b.askUsage(ctx, f, holder)
		if err != nil {
			return err
		}
		if err := f.during(ctx, idleFor); err != nil {
			return err
		}
		after, err := b.askUsage(ctx, f, holder)
		if err != nil {
			return err
		}
		share := "not known on this system"
		if after.CPU > 0 {
			share = fmt.Sprintf("%.2f %% of a core", 100*float64(after.CPU-before.CPU)/float64(after.At-before.At))
		}
		cpu = single(fmt.Sprintf("idle node holding %s ids, two more waiting for each: CPU in %v", thousands(count), idleFor), share)
		rss = single(fmt.Sprintf("the same: resident memory, %v after a garbage collection", idleFor), fmt.Sprintf("%d MB", after.RSS/1e6))
		return nil
	})
	return []result{cpu, rss}, err
}

func (b *bench) askUsage(ctx context.Context, f *fleet, n *nodeProcess) (nodeEvent, error) {
	n.usage = nodeEvent{}
	if err := f.order(nodeOrder{Op: opReport}, n); err != nil {
		return nodeEvent{}, err
	}
	err := f.until(ctx, "the node to report", func() bool { return n.usage.Event != "" })
	return n.usage, err
}

// swarm measures how long 50 nodes that start together take until the child
// runs on one of them.
func (b *bench) swarm(ctx context.Context, rounds int) ([]result, error) {
	var figures []time.Duration
	for range rounds {
		d, err := oneSwarm(ctx)
		if err != nil {
			return nil, err
		}
		figures = append(figures, d)
		b.progress.update("round %d of %d: %v", len(figures), rounds, d)
	}
	return []result{summarize(figures)}, nil
}

func oneSwarm(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	discard := slog.New(slog.DiscardHandler)
	seed, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{"127.0.0.1"}, Logger: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)})
	if err != nil {
		return 0, err
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(seed.GetAutoBindPort()))
	started := make(chan time.Time, swarmSize)
	child := highlander.ServiceFunc(func(ctx context.Context) error {
		started <- time.Now()
		<-ctx.Done()
		return nil
	})
	failed := make(chan error, swarmSize)
	begin := time.Now()
	var nodes sync.WaitGroup
	for i := range swarmSize {
		cfg := gossip.Config{Name: "swarm", Bind: "127.0.0.1:0", Join: []string{addr}, Expect: swarmSize, Logger: discard}
		if i == 0 {
			cfg.Transport, cfg.Join = seed, nil
		}
		nodes.Go(func() {
			c, err := gossip.Join(ctx, cfg)
			if err != nil {
				failed <- err
				return
			}
			defer c.Close()
			highlander.Wrap(c, highlander.ChildSpec{ID: benchID, Service: child}, highlander.WithLogger(discard)).Serve(ctx)
		})
	}
	var took time.Duration
	select {
	case at := <-started:
		took = at.Sub(begin)
	case err = <-failed:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	cancel()
	nodes.Wait()
	return took, err
}
