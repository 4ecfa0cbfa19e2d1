package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
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
	if f.one(b.id) == nil {
		return 0, fmt.Errorf("%d nodes run the child at once; one should", len(f.holders(b.id)))
	}
	return round(ctx, f)
}
