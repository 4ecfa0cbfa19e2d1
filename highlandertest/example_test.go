package highlandertest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"highlander"
	"highlander/highlandertest"
)

// Two nodes want the same id. One gets it, the other takes over when it
// crashes.
func ExampleCluster_Crash() {
	ctx := context.Background()
	c := highlandertest.New()
	if _, err := c.Node("a").Acquire(ctx, "worker", highlander.AcquireOptions{}); err != nil {
		fmt.Println(err)
	}

	c.Crash("a")
	lease, err := c.Node("b").Acquire(ctx, "worker", highlander.AcquireOptions{})
	if err != nil {
		fmt.Println(err)
	}
	holder, err := c.Node("c").Lookup(ctx, "worker")
	fmt.Println(holder.Node, lease.Token(), err)
	// Output: b#1 2 <nil>
}

// A netsplit gives each side a holder. When it heals, the one on the larger
// side stays and the other one has to clean up.
func ExampleCluster_Partition() {
	ctx := context.Background()
	c := highlandertest.New()
	c.Node("c")
	minor, _ := c.Node("a").Acquire(ctx, "worker", highlander.AcquireOptions{})
	c.Partition([]string{"a"}, []string{"b", "c"})
	major, _ := c.Node("b").Acquire(ctx, "worker", highlander.AcquireOptions{})
	fmt.Println("cut: ", minor.Err(), major.Err())

	c.Heal()
	fmt.Println("whole:", errors.Is(minor.Err(), highlander.ErrConflict), major.Err())
	// Output:
	// cut:  <nil> <nil>
	// whole: true <nil>
}

// A child wrapped on two nodes. Inside a synctest bubble, synctest.Wait is all
// the waiting a test needs: when it returns, everybody has done what there was
// to do.
func ExampleNew() {
	t := new(testing.T) // in a test, the one it was given
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c := highlandertest.New()
		for _, name := range []string{"a", "b"} {
			child := highlander.ServiceFunc(func(ctx context.Context) error {
				fmt.Println("starts on", name)
				<-ctx.Done()
				fmt.Println("stops on", name, "-", context.Cause(ctx))
				return nil
			})
			go highlander.Wrap(c.Node(name), highlander.ChildSpec{ID: "worker", Service: child}).Serve(ctx)
			synctest.Wait()
		}

		c.Freeze("a") // b takes over, of which a does not know
		synctest.Wait()
		c.Unfreeze("a")
		synctest.Wait()
	})
	// Output:
	// starts on a
	// starts on b
	// stops on a - highlander: another node holds the id
	// stops on b - highlander: shutdown
}
