package highlander_test

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/thejerf/suture/v4"

	"highlander"
	"highlander/highlandertest"
)

// Two replicas of a program wrap the same child. One runs it; when that one
// ends, the other takes over.
func ExampleWrap() {
	cluster := highlandertest.New() // in a program: gossip.Join
	started := make(chan string)
	program := func(name string) (stop func()) {
		worker := highlander.ServiceFunc(func(ctx context.Context) error {
			started <- name
			<-ctx.Done()
			fmt.Println(name, "cleans up")
			return nil
		})
		sup := suture.NewSimple(name)
		sup.Add(highlander.Wrap(cluster.Node(name), highlander.ChildSpec{ID: "worker", Service: worker}))

		ctx, cancel := context.WithCancel(context.Background())
		served := sup.ServeBackground(ctx)
		return func() {
			cancel()
			<-served
		}
	}

	stopA := program("a")
	fmt.Println(<-started, "runs")
	stopB := program("b")
	stopA()
	fmt.Println(<-started, "runs")
	stopB()
	// Output:
	// a runs
	// a cleans up
	// b runs
	// b cleans up
}

// A supervisor with everything below it runs once in the cluster. It is built
// where it is served, for a suture.Supervisor can be served only once.
func ExampleWrap_supervisorAsTheChild() {
	ctx, cancel := context.WithCancel(context.Background())
	running := make(chan struct{})
	service := highlander.ServiceFunc(func(ctx context.Context) error {
		running <- struct{}{}
		<-ctx.Done()
		return nil
	})
	pair := highlander.ServiceFunc(func(ctx context.Context) error {
		sup := suture.New("pair", suture.Spec{Timeout: math.MaxInt64}) // wait for them, however long it takes
		sup.Add(service)
		sup.Add(service)
		return sup.Serve(ctx)
	})
	go func() {
		<-running
		<-running
		fmt.Println("both run")
		cancel()
	}()

	cluster := highlandertest.New()
	err := highlander.Wrap(cluster.Node("a"), highlander.ChildSpec{ID: "pair", Service: pair}).Serve(ctx)
	fmt.Println(errors.Is(err, context.Canceled))
	// Output:
	// both run
	// true
}

// A job that must not run on two nodes at once.
func ExampleRun() {
	cluster := highlandertest.New()
	err := highlander.Run(context.Background(), cluster.Node("a"), "migrate-schema", func(ctx context.Context) error {
		fmt.Println("migrating")
		return nil
	})
	fmt.Println(err)
	// Output:
	// migrating
	// <nil>
}

// register stands for a store that keeps the largest token seen and refuses
// smaller ones: a column in a table, a condition on a write.
type register struct {
	token uint64
	value string
}

func (r *register) write(token uint64, value string) error {
	if token < r.token {
		return fmt.Errorf("token %d is older than %d", token, r.token)
	}
	r.token, r.value = token, value
	return nil
}

// A node is frozen and another takes over. When the first one wakes, its child
// does not know yet; the fencing token keeps it from doing harm.
func ExampleFromContext() {
	var store register
	cluster := highlandertest.New()
	leases := make(chan highlander.LeaseInfo)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error)
	serve := func(node string) {
		child := highlander.ServiceFunc(func(ctx context.Context) error {
			lease, _ := highlander.FromContext(ctx)
			leases <- lease
			<-ctx.Done()
			return nil
		})
		s := highlander.Wrap(cluster.Node(node), highlander.ChildSpec{ID: "writer", Service: child})
		go func() { served <- s.Serve(ctx) }()
	}
	serve("a")
	first := <-leases
	serve("b")
	cluster.Freeze("a")
	second := <-leases

	fmt.Println(second.Node, store.write(second.Token(), "from b"))
	fmt.Println(first.Node, store.write(first.Token(), "from a"))
	fmt.Println(store.value)

	cancel()
	<-served
	<-served
	// Output:
	// b#1 <nil>
	// a#1 token 1 is older than 2
	// from b
}

// The child says where it can be reached; every node can ask.
func ExampleCluster_lookup() {
	cluster := highlandertest.New()
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan struct{})
	child := highlander.ServiceFunc(func(ctx context.Context) error {
		close(ready)
		<-ctx.Done()
		return nil
	})
	s := highlander.Wrap(cluster.Node("a"), highlander.ChildSpec{ID: "api", Service: child, Meta: "10.0.0.7:8080"})
	served := make(chan error)
	go func() { served <- s.Serve(ctx) }()
	<-ready

	other := cluster.Node("b")
	holder, err := other.Lookup(ctx, "api")
	fmt.Println(holder.Node, "at", holder.Meta, err)

	cancel()
	<-served
	_, err = other.Lookup(context.Background(), "api")
	fmt.Println(errors.Is(err, highlander.ErrNotHeld))
	// Output:
	// a#1 at 10.0.0.7:8080 <nil>
	// true
}
