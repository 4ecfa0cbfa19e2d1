package gossip_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"

	"highlander"
	"highlander/gossip"
	"highlander/internal/boottime"
)

// The test binary is also the program whose replicas are tested: with childEnv
// set it joins a cluster, wraps one child and says on its output what happens.
const (
	childEnv     = "HIGHLANDER_GOSSIP_TEST_NAME" // its name in the cluster
	childBindEnv = "HIGHLANDER_GOSSIP_TEST_BIND"
	childJoinEnv = "HIGHLANDER_GOSSIP_TEST_JOIN"
	childTTL     = 3 * time.Second // its voters vote for nobody for that long, too
	childStop    = 500 * time.Millisecond

	childBlindEnv = "HIGHLANDER_GOSSIP_TEST_BLIND" // no failure detector

	childQuorumEnv = "HIGHLANDER_GOSSIP_TEST_QUORUM" // in quorum mode, of three
)

func childMain() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() { // the end of the test, however it ends, is the end of its processes
		bufio.NewReader(os.Stdin).ReadByte()
		os.Exit(1)
	}()
	cfg := gossip.Config{
		Name: os.Getenv(childEnv), Bind: os.Getenv(childBindEnv), Join: strings.Fields(os.Getenv(childJoinEnv)),
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	if os.Getenv(childQuorumEnv) != "" {
		cfg.Quorum, cfg.TTL = 2, childTTL
	}
	if len(cfg.Join) > 0 {
		cfg = cfg.Meeting()
	}
	c, err := gossip.JoinTuned(ctx, cfg, func(mc *memberlist.Config) {
		if os.Getenv(childBlindEnv) != "" {
			noFailureDetector(mc)
		}
	})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("joined", c.Addr())
	go sayWatched(ctx, c)
	child := highlander.ServiceFunc(func(ctx context.Context) error {
		fmt.Println("started")
		<-ctx.Done()
		fmt.Println("stopping:", context.Cause(ctx))
		return nil
	})
	spec := highlander.ChildSpec{ID: "id", Service: child}
	if cfg.Quorum > 0 {
		spec.Shutdown, spec.Service = childStop, highlander.ServiceFunc(actWhileHeld)
	}
	highlander.Wrap(c, spec, highlander.WithLogger(cfg.Logger)).Serve(ctx)
	c.Close()
	fmt.Println("closed")
	os.Exit(0)
}

// actWhileHeld is a child that looks, before each of its acts, whether the lease
// has run out, and says when it has started and when it has acted last.
func actWhileHeld(ctx context.Context) error {
	lease, _ := highlander.FromContext(ctx)
	last := boottime.Now()
	fmt.Println("started", int64(last))
	act := time.NewTicker(time.Millisecond)
	defer act.Stop()
	for {
		select {
		case <-act.C:
			if now := boottime.Now(); lease.Expires().After(time.Now()) {
				last = now
			}
		case <-ctx.Done():
			fmt.Println("stopping:", context.Cause(ctx), int64(last))
			return nil
		}
	}
}

// sayWatched says which nodes are watched by a tripwire.
func sayWatched(ctx context.Context, c *gossip.Cluster) {
	said := map[string]bool{}
	for {
		members, changed := c.Membership()
		for _, m := range members {
			if !m.Self && !said[m.Name] && c.AwaitWatch(ctx, m.Name) {
				said[m.Name] = true
				name, _, _ := strings.Cut(m.Name, "#")
				fmt.Println("watches", name)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
