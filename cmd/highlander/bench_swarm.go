package main

import (
	"context"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"highlander"
	"highlander/gossip"
)

const swarmSize = 50

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
