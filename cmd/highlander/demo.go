package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

const (
	demoID   = "demo"
	demoRest = 200 * time.Millisecond
)

// demoLimit is how long each step may take; a variable for the tests.
var demoLimit = 15 * time.Second

func newDemoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Watch a take-over: three nodes, kill -9, a netsplit, with timings",
		Long: `Demo starts three node processes on loopback, which wrap the same child. It stops
the node that runs it, kills the next one with SIGKILL, cuts the network between
the nodes and heals it, and prints how long each take-over took. It exits with
an error if anything did not hold.`,
		Example: "  highlander demo",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := &demo{out: newProgress(cmd.OutOrStdout()), fleet: newFleet("", false)}
			defer d.fleet.close()
			err := untilSignal(cmd.Context(), d.run)
			d.out.done()
			if err != nil {
				return err
			}
			return d.printTable(cmd.OutOrStdout())
		},
	}
}

// demo plays a short story with a fleet of nodes.
type demo struct {
	out   *progress
	fleet *fleet
	cut   *nodeProcess // alone on its side of the netsplit
	rows  [][2]string
}

func (d *demo) run(ctx context.Context) error {
	steps := []struct {
		name string
		play func(context.Context) error
	}{
		{"start", d.start}, {"graceful hand-over", d.handOver}, {"kill -9", d.killHolder},
		{"netsplit", d.netsplit}, {"heal", d.healNetsplit},
	}
	for _, step := range steps {
		stepCtx, cancel := context.WithTimeoutCause(ctx, demoLimit, fmt.Errorf("it took more than %v", demoLimit))
		err := step.play(stepCtx)
		cancel()
		if err != nil {
			return fmt.Errorf("the demo failed: %s: %w", step.name, err)
		}
	}
	return nil
}

func (d *demo) start(ctx context.Context) error {
	d.out.step("Starting three node processes on loopback ...")
	begin := monotonicNow()
	if err := d.fleet.startAll(ctx, 3); err != nil {
		return err
	}
	if err := d.fleet.order(nodeOrder{Op: opWrap, ID: demoID}, d.fleet.live()...); err != nil {
		return err
	}
	holder, err := d.oneHolder(ctx)
	if err != nil {
		return err
	}
	d.note("three nodes started -> one runs the child", holder.running[demoID]-begin)
	d.say("%s runs the child; %s wait.", holder.name, names(d.fleet.others(holder)))
	return nil
}

func (d *demo) handOver(ctx context.Context) error {
	old := d.fleet.one(demoID)
	d.out.step("Stopping %s gracefully ...", old.name)
	if err := d.fleet.order(nodeOrder{Op: opStop, ID: demoID}, old); err != nil {
		return err
	}
	err := d.fleet.until(ctx, "another node to run the child", func() bool {
		_, stopped := old.stopped[demoID]
		next := d.fleet.one(demoID)
		return stopped && next != nil && next != old
	})
	if err != nil {
		return err
	}
	next, stopped := d.fleet.one(demoID), old.stopped[demoID]
	took := next.running[demoID] - stopped.At
	switch {
	case stopped.Cause != causeShutdown:
		return fmt.Errorf("the child of %s was told %q, not %q", old.name, stopped.Cause, causeShutdown)
	case took < 0:
		return fmt.Errorf("%s started the child %v before that of %s had stopped", next.name, -took, old.name)
	}
	d.note("graceful hand-over: child returned -> running elsewhere", took)
	d.say("%s cleaned up and released; %s runs the child %s later.", old.name, next.name, short(took))
	if err := d.fleet.order(nodeOrder{Op: opWrap, ID: demoID}, old); err != nil {
		return err
	}
	return d.stillOne(ctx, next)
}

func (d *demo) killHolder(ctx context.Context) error {
	old := d.fleet.one(demoID)
	d.out.step("Killing %s with SIGKILL ...", old.name)
	at := d.fleet.kill(old)
	next, err := d.oneHolder(ctx)
	if err != nil {
		return err
	}
	took := next.running[demoID] - at
	d.note("kill -9 -> running elsewhere", took)
	d.say("%s runs the child %s after the kill.", next.name, short(took))
	fresh, err := d.fleet.start(ctx)
	if err != nil {
		return err
	}
	if err := d.fleet.order(nodeOrder{Op: opWrap, ID: demoID}, fresh); err != nil {
		return err
	}
	if err := d.fleet.whole(ctx); err != nil {
		return err
	}
	d.say("%s joined in its place and waits.", fresh.name)
	return d.stillOne(ctx, next)
}

func (d *demo) netsplit(ctx context.Context) error {
	holder := d.fleet.one(demoID)
	d.out.step("Cutting the network: %s | %s ...", holder.name, names(d.fleet.others(holder)))
	at := monotonicNow()
	if err := d.fleet.split(holder); err != nil {
		return err
	}
	if err := d.fleet.until(ctx, "the other side to run the child, too", func() bool { return len(d.fleet.holders(demoID)) == 2 }); err != nil {
		return err
	}
	other := d.fleet.holders(demoID)[0]
	if other == holder {
		other = d.fleet.holders(demoID)[1]
	}
	d.cut = holder
	d.note("netsplit -> the other side runs the child, too", other.running[demoID]-at)
	d.say("Neither side can know of the other: %s and %s both run the child.", holder.name, other.name)
	return d.fleet.apart(ctx, holder)
}

func (d *demo) healNetsplit(ctx context.Context) error {
	lost, kept := d.cut, d.fleet.holders(demoID)[0]
	if kept == lost {
		kept = d.fleet.holders(demoID)[1]
	}
	since := kept.running[demoID]
	d.out.step("Healing the network ...")
	at := monotonicNow()
	if err := d.fleet.heal(); err != nil {
		return err
	}
	left, err := d.oneHolder(ctx)
	if err != nil {
		return err
	}
	stopped := lost.stopped[demoID]
	switch {
	case left != kept:
		return fmt.Errorf("%s, on the smaller side, was kept", left.name)
	case kept.running[demoID] != since:
		return fmt.Errorf("the child of %s was started anew", kept.name)
	case stopped.Cause != causeConflict:
		return fmt.Errorf("the child of %s was told %q, not %q", lost.name, stopped.Cause, causeConflict)
	}
	d.note("healed -> one left", stopped.At-at)
	d.say("%s, on the larger side, never noticed; %s cleaned up after %q and waits.", kept.name, lost.name, causeConflict)
	if err := d.fleet.whole(ctx); err != nil {
		return err
	}
	return d.stillOne(ctx, kept)
}

// oneHolder waits until exactly one node runs the child.
func (d *demo) oneHolder(ctx context.Context) (*nodeProcess, error) {
	err := d.fleet.until(ctx, "exactly one node to run the child", func() bool { return d.fleet.one(demoID) != nil })
	if err != nil {
		return nil, err
	}
	return d.fleet.one(demoID), nil
}

// stillOne checks that for a while nobody but n runs the child.
func (d *demo) stillOne(ctx context.Context, n *nodeProcess) error {
	since := n.running[demoID]
	if err := d.fleet.during(ctx, demoRest); err != nil {
		return err
	}
	if now := d.fleet.one(demoID); now != n || n.running[demoID] != since {
		return fmt.Errorf("%d nodes run the child, not %s alone", len(d.fleet.holders(demoID)), n.name)
	}
	return nil
}

func (d *demo) note(what string, took time.Duration) {
	d.rows = append(d.rows, [2]string{what, short(took)})
}

func (d *demo) say(format string, args ...any) { d.out.say("  "+format, args...) }

func (d *demo) printTable(w io.Writer) error {
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, row := range d.rows {
		fmt.Fprintf(t, "%s\t%s\t\n", row[0], row[1])
	}
	return t.Flush()
}

func names(nodes []*nodeProcess) string {
	s := ""
	for i, n := range nodes {
		if i > 0 {
			s += " and "
		}
		s += n.name
	}
	return s
}
