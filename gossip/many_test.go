package gossip_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"highlander"
	"highlander/gossip"
)

func TestManyNodesRunOneChild(t *testing.T) {
	w := newWorld(t)
	s := newStage(t, "id")
	start := time.Now()
	nodes := startMany(t, w, s)
	t.Logf("from the first Join to the first child on one of %d nodes: %v", len(nodes), time.Since(start).Round(time.Millisecond))
	w.see(len(nodes), nodes...)
	s.oneRuns()
	s.endAll()
}

// startMany starts many nodes at once, all with a singleton, and waits until one
// runs its child.
func startMany(t testing.TB, w *world, s *stage) []*gossip.Cluster {
	t.Helper()
	first := w.join("n00")
	s.wrap(first)
	var joining sync.WaitGroup
	for i := 1; i < manyNodes; i++ {
		joining.Go(func() {
			c, err := w.tryJoinAs(t.Context(), w.config.Meeting(), bind(t, 0), fmt.Sprintf("n%02d", i), first.Addr())
			if err != nil {
				t.Error(err)
				return
			}
			s.wrap(c)
		})
	}
	joining.Wait()
	s.oneRuns()
	return w.nodes
}

func BenchmarkTakeOver(b *testing.B) {
	for _, count := range []int{1, 1000, 10000} {
		b.Run(fmt.Sprintf("ids=%d", count), func(b *testing.B) {
			for range b.N {
				takeOver(b, count)
			}
		})
	}
}

// takeOver has one of three nodes acquire many ids, the others wait for all of
// them, and the first one crash.
func takeOver(b *testing.B, count int) {
	b.StopTimer()
	w := newWorld(b)
	nodes := w.cluster(3)
	w.watchAll(nodes...)
	b.StartTimer()
	start := time.Now()
	<-acquireAll(b, nodes[:1], count)
	b.ReportMetric(float64(time.Since(start).Microseconds())/1000, "ms/start")

	b.StopTimer()
	over := acquireAll(b, nodes[1:], count)
	for i := range count {
		for nodes[1].KnownWaiting(fmt.Sprint("id", i)) < 2 || nodes[2].KnownWaiting(fmt.Sprint("id", i)) < 2 {
			time.Sleep(time.Millisecond)
		}
	}
	b.StartTimer()
	start = time.Now()
	nodes[0].Crash()
	<-over
	b.ReportMetric(float64(time.Since(start).Microseconds())/1000, "ms/take-over")
	b.StopTimer()
	w.closeAll()
	b.StartTimer()
}

// acquireAll has nodes acquire many ids. The channel is closed when all ids have
// been had.
func acquireAll(b *testing.B, nodes []*gossip.Cluster, count int) <-chan struct{} {
	all := make(chan struct{})
	var left atomic.Int64
	left.Store(int64(count))
	for i := range count {
		var first atomic.Bool
		for _, c := range nodes {
			go func() {
				if _, err := c.Acquire(b.Context(), fmt.Sprint("id", i), highlander.AcquireOptions{}); err == nil && first.CompareAndSwap(false, true) && left.Add(-1) == 0 {
					close(all)
				}
			}()
		}
	}
	return all
}
