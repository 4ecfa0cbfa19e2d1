package kubernetes_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
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

// tally counts the requests of all its clients that write.
type tally struct{ writes, refused atomic.Int64 }

func (c *tally) wrap(inner http.RoundTripper) http.RoundTripper {
	return counted{RoundTripper: inner, tally: c}
}

type counted struct {
	http.RoundTripper
	*tally
}

func (c counted) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet {
		c.writes.Add(1)
	}
	answer, err := c.RoundTripper.RoundTrip(r)
	if err == nil && answer.StatusCode == http.StatusConflict {
		c.refused.Add(1)
	}
	return answer, err
}

// BenchmarkTakeOverOfManyIDs ends the holder of 200 ids, each of which nine nodes
// wait for: how long it takes after its end until all are held, the TTL of 6 s
// included, and what the nodes write until then.
func BenchmarkTakeOverOfManyIDs(b *testing.B) {
	const nodes, many, ttl = 10, 200, 6 * time.Second
	for b.Loop() {
		w, count := newWorld(b), &tally{}
		var all []*kubernetes.Cluster
		for i := range nodes {
			all = append(all, w.openWith(w.client(count.wrap), fmt.Sprint("n", i), kubernetes.WithTTL(ttl), kubernetes.WithLogger(slog.New(slog.DiscardHandler))))
		}
		w.acquireAll(all[0], ids(many))
		held := make(chan struct{}, nodes*many)
		for _, node := range all[1:] {
			for _, waits := range w.startAll(node, ids(many)) {
				go func() {
					<-waits.done
					held <- struct{}{}
				}()
			}
			for _, id := range ids(many) {
				w.knows(node, id, all[0])
			}
		}
		writes, refused, began := count.writes.Load(), count.refused.Load(), time.Now()
		all[0].Crash()
		for range many {
			w.receive(held)
		}
		b.ReportMetric(time.Since(began).Seconds(), "s-until-held")
		b.ReportMetric(float64(count.writes.Load()-writes), "writes")
		b.ReportMetric(float64(count.refused.Load()-refused), "refused")
	}
}
