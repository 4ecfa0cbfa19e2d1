package gossip_test

import (
	"context"
	"fmt"
	"log"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"highlander"
	"highlander/gossip"
)

// Two replicas of a program, here in one process: the first runs the worker, and
// when it stops the second does.
func ExampleJoin() {
	ctx := context.Background()
	one, err := gossip.Join(ctx, gossip.Config{Name: "one", Label: "example", Bind: "127.0.0.1:0"})
	if err != nil {
		log.Fatal(err)
	}
	defer one.Close()
	two, err := gossip.Join(ctx, gossip.Config{Name: "two", Label: "example", Bind: "127.0.0.1:0", Join: []string{one.Addr()}})
	if err != nil {
		log.Fatal(err)
	}
	defer two.Close()

	started := make(chan string)
	worker := highlander.ServiceFunc(func(ctx context.Context) error {
		lease, _ := highlander.FromContext(ctx)
		name, _, _ := strings.Cut(lease.Node, "#") // behind it is a random number
		select {
		case started <- name:
			<-ctx.Done()
		case <-ctx.Done():
		}
		return nil
	})
	spec := highlander.ChildSpec{ID: "worker", Service: worker}

	var replicas sync.WaitGroup
	serve := func(cluster *gossip.Cluster) (stop context.CancelFunc) {
		ctx, stop := context.WithCancel(ctx)
		replicas.Go(func() { highlander.Wrap(cluster, spec).Serve(ctx) })
		return stop
	}
	stopOne := serve(one)
	fmt.Println(<-started, "runs the worker")
	stopTwo := serve(two)
	stopOne()
	fmt.Println(<-started, "runs the worker")
	stopTwo()
	replicas.Wait()
	// Output:
	// one runs the worker
	// two runs the worker
}

// With a quorum of two out of three there are never two workers, whatever happens
// to the network. Each of the three has the same settings.
func ExampleJoin_quorum() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()

	cluster, err := gossip.Join(ctx, gossip.Config{
		Bind:    "0.0.0.0:7946",
		Join:    []string{"node-1.internal", "node-2.internal", "node-3.internal"},
		KeyFile: "/etc/worker/gossip.key",
		Expect:  3,
		Quorum:  2,
		TTL:     12 * time.Second,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer cluster.Close()

	worker := highlander.ServiceFunc(func(ctx context.Context) error {
		<-ctx.Done()
		return nil
	})
	singleton := highlander.Wrap(cluster, highlander.ChildSpec{ID: "worker", Service: worker, Shutdown: 5 * time.Second})
	if err := singleton.Serve(ctx); err != nil {
		log.Print(err)
	}
}

func ExampleParseURL() {
	cfg, err := gossip.ParseURL("gossip://127.0.0.1?join=node-1,node-2:7000&quorum=2&ttl=6s")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(cfg.Bind, cfg.Join, cfg.Quorum, cfg.TTL)

	_, err = gossip.ParseURL("gossip://?quorum=2&ttl=1h")
	fmt.Println(err)
	// Output:
	// 127.0.0.1:7946 [node-1 node-2:7000] 2 6s
	// gossip: cluster URL: ttl is 1h0m0s; 1s to 10m0s is allowed
}

// A child that may take five seconds to stop needs a lease that is longer.
func ExampleConfig_CheckStopWithin() {
	cfg := gossip.Config{Quorum: 2, TTL: 5 * time.Second}
	fmt.Println(cfg.CheckStopWithin(highlander.DefaultShutdown))
	// Output:
	// TTL 5s is too short to stop within 5s: less 100ms for clocks and 2.5s for two renewals it leaves 2.4s; a TTL of at least 10.5s, or at most 2.4s to stop, is needed
}
