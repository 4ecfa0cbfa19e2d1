package kubernetes_test

import (
	"slices"
	"testing"
	"time"

	"highlander/kubernetes"
)

// BenchmarkHandOver hands a lease from node to node, from Release to the return of
// the other's Acquire.
func BenchmarkHandOver(b *testing.B) {
	w := newWorld(b)
	nodes := []*kubernetes.Cluster{w.open("a"), w.open("b")}
	held := w.acquire(nodes[0], "id", 0)
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		holder, next := nodes[i%2], nodes[(i+1)%2]
		waiter := w.start(next, "id")
		w.knows(next, "id", holder)
		began := time.Now()
		w.release(held)
		w.receive(waiter.done)
		took = append(took, time.Since(began))
		held = w.firstOf(waiter)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "median-ms")
	b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "slowest-ms")
}
