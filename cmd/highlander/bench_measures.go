package main

import (
	"context"
	"fmt"
	"time"
)

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
