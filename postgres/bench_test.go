package postgres_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"highlander"
	"highlander/postgres"
)

// BenchmarkStart starts a thousand ids on one node, by a cluster that is new each
// time.
func BenchmarkStart(b *testing.B) {
	server := sharedServer(b)
	for b.Loop() {
		c, err := postgres.Open(server.URL(), postgres.WithSchema(newSchema()))
		if err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		var all errgroup.Group
		for i := range 1000 {
			all.Go(func() error {
				_, err := c.Acquire(context.Background(), fmt.Sprint("id", i), highlander.AcquireOptions{})
				return err
			})
		}
		if err := all.Wait(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms/1000ids")
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHandOver releases an id that another node waits for.
func BenchmarkHandOver(b *testing.B) {
	server := sharedServer(b)
	schema := newSchema()
	var nodes []*postgres.Cluster
	for range 2 {
		c, err := postgres.Open(server.URL(), postgres.WithSchema(schema))
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		nodes = append(nodes, c)
	}
	held, err := nodes[0].Acquire(b.Context(), "id", highlander.AcquireOptions{})
	if err != nil {
		b.Fatal(err)
	}
	for i := 1; b.Loop(); i++ {
		next := make(chan highlander.Lease, 1)
		go func() {
			l, err := nodes[i%2].Acquire(context.Background(), "id", highlander.AcquireOptions{})
			if err != nil {
				b.Error(err)
			}
			next <- l
		}()
		b.StopTimer()
		time.Sleep(20 * time.Millisecond) // in the queue, most likely: else it is measured as well
		b.StartTimer()
		if err := held.Release(b.Context()); err != nil {
			b.Fatal(err)
		}
		held = <-next
	}
}
