package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"highlander"
)

func newWitnessCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "witness",
		Short: "Vote, and run nothing: the third vote for two nodes",
		Long: `Witness takes part in the elections of a cluster with quorum=N and runs nothing.
Two nodes and a witness are three voters: with quorum=2 one of the nodes goes on
when the other one is gone, or cannot be reached. It needs hardly any resources
and belongs on a third machine. A cluster on a server has no use for one.

SIGINT and SIGTERM end it; it says goodbye to the others and exits with 0.`,
		Example: `  highlander witness --cluster 'gossip://10.0.0.7:7946?join=10.0.0.5,10.0.0.6&key-file=/etc/highlander.key&quorum=2'`,
		Args:    noArgs,
	}
	url := addClusterFlag(cmd)
	logs := addLogFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		log, err := logs.logger(cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		at, err := url.parse()
		if err != nil {
			return err
		}
		if err := at.usable(at.checkWitness()); err != nil {
			return err
		}
		return untilSignal(cmd.Context(), func(ctx context.Context) error { return witness(ctx, at, log) })
	}
	return cmd
}

// witness takes part until ctx ends.
func witness(ctx context.Context, at endpoint, log *slog.Logger) error {
	cluster, err := at.open(ctx, nil, log)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	}
	defer cluster.Close()
	tick := time.NewTicker(holderEvery)
	defer tick.Stop()
	var known []highlander.Holder
	for {
		select {
		case <-tick.C:
			holders, err := cluster.Holders(ctx)
			if err != nil {
				return err
			}
			tellChanges(log, known, holders)
			known = holders
		case <-ctx.Done():
			log.Info("leaving at a signal")
			return nil
		}
	}
}

// tellChanges logs which ids have other holders than before; both are sorted by
// id.
func tellChanges(log *slog.Logger, before, after []highlander.Holder) {
	for len(before) > 0 || len(after) > 0 {
		switch {
		case len(after) == 0 || len(before) > 0 && before[0].ID < after[0].ID:
			log.Info("nobody holds the id any more", "id", before[0].ID, "holder", before[0].Node)
			before = before[1:]
			continue
		case len(before) > 0 && before[0].ID == after[0].ID:
			if h := after[0]; before[0].Node != h.Node || before[0].Token != h.Token {
				log.Info("another node holds the id", "id", h.ID, "holder", h.Node, "token", h.Token)
			}
			before = before[1:]
		default:
			log.Info("a node holds the id", "id", after[0].ID, "holder", after[0].Node, "token", after[0].Token)
		}
		after = after[1:]
	}
}
