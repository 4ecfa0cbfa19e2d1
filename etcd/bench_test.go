package etcd_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"go.etcd.io/etcd/client/v3/concurrency"

	"highlander"
	"highlander/etcd"
	"highlander/etcd/etcdtest"
)

// Medians beside those of concurrency.Election, on a server of three members on
// this machine:
//
//	go test -run '^$' -bench . ./etcd
func BenchmarkHandOver(b *testing.B) {
	server, err := etcdtest.Start(3)
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	b.Run("highlander", func(b *testing.B) {
		x, y := openBench(b, server, 12*time.Second), openBench(b, server, 12*time.Second)
		l := acquire(b, x, "id")
		var took []time.Duration
		for b.Loop() {
			next := make(chan highlander.Lease)
			go func() { next <- acquire(b, y, "id") }()
			for n := 0; n != 1; {
				n, _ = x.KnownWaiting(b.Context(), "id")
			}
			time.Sleep(2 * time.Millisecond)
			start := time.Now()
			go l.Release(b.Context())
			l = <-next
			took = append(took, time.Since(start))
			x, y = y, x
		}
		report(b, took)
	})
	b.Run("concurrency.Election", func(b *testing.B) {
		var elections []*concurrency.Election
		for range 2 {
			client, err := server.Client()
			if err != nil {
				b.Fatal(err)
			}
			defer client.Close()
			s, err := concurrency.NewSession(client, concurrency.WithTTL(12))
			if err != nil {
				b.Fatal(err)
			}
			elections = append(elections, concurrency.NewElection(s, "/peer"))
		}
		x, y := elections[0], elections[1]
		if err := x.Campaign(b.Context(), "x"); err != nil {
			b.Fatal(err)
		}
		var took []time.Duration
		for b.Loop() {
			next := make(chan error)
			go func() { next <- y.Campaign(b.Context(), "y") }()
			time.Sleep(10 * time.Millisecond)
			start := time.Now()
			go x.Resign(b.Context())
			if err := <-next; err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(start))
			x, y = y, x
		}
		report(b, took)
	})
}

func BenchmarkKilledHolder(b *testing.B) {
	server, err := etcdtest.Start(3)
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	var took []time.Duration
	for b.Loop() {
		x, y := openBench(b, server, 2*time.Second), openBench(b, server, 2*time.Second)
		id := fmt.Sprint(len(took))
		acquire(b, x, id)
		next := make(chan highlander.Lease)
		go func() { next <- acquire(b, y, id) }()
		for n := 0; n != 1; {
			n, _ = y.KnownWaiting(b.Context(), id)
		}
		time.Sleep(time.Second + rand.N(500*time.Millisecond)) // at any point between two renewals
		start := time.Now()
		x.Crash()
		(<-next).Release(b.Context())
		took = append(took, time.Since(start))
		y.Close()
	}
	report(b, took)
}

func BenchmarkThousandIDs(b *testing.B) {
	server, err := etcdtest.Start(3)
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	var took []time.Duration
	for b.Loop() {
		c := openBench(b, server, 12*time.Second)
		start := time.Now()
		done := make(chan highlander.Lease)
		for i := range 1000 {
			go func() { done <- acquire(b, c, fmt.Sprint(i)) }()
		}
		for range 1000 {
			<-done
		}
		took = append(took, time.Since(start))
		c.Close()
	}
	report(b, took)
}

func openBench(b *testing.B, server *etcdtest.Server, ttl time.Duration) *etcd.Cluster {
	c, err := etcd.Open(server.URL(), etcd.WithTTL(ttl), etcd.WithLogger(logger()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}

func acquire(t testing.TB, c highlander.Cluster, id string) highlander.Lease {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l, err := c.Acquire(ctx, id, highlander.AcquireOptions{})
	if err != nil {
		t.Error(err)
	}
	return l
}

func report(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "median-ms")
	b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "slowest-ms")
	b.ReportMetric(0, "ns/op")
}
