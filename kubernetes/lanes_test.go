package kubernetes_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"highlander/kubernetes"
)

// These are about requests that wait for others of their node.

// gate counts the requests of a client that make an object, and holds them up while
// it is shut.
type gate struct {
	inner http.RoundTripper
	open  chan struct{} // closed when it opens

	mu   sync.Mutex
	came int
}

// gated returns a node whose gate is shut.
func (w *world) gated(name string) (*kubernetes.Cluster, *gate) {
	w.t.Helper()
	g := &gate{open: make(chan struct{})}
	client := w.client(func(inner http.RoundTripper) http.RoundTripper {
		g.inner = inner
		return g
	})
	return w.openWith(client, name, patientTTL), g
}

// patientTTL is for nodes whose requests are held up: each has a fifth of it.
var patientTTL = kubernetes.WithTTL(5 * patience)

func (g *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPost {
		g.mu.Lock()
		g.came++
		g.mu.Unlock()
		select {
		case <-g.open:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	return g.inner.RoundTrip(r)
}

// WrappedRoundTripper is how client-go finds what is inside.
func (g *gate) WrappedRoundTripper() http.RoundTripper { return g.inner }

func (g *gate) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.came
}

func ids(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("id-%d", i))
	}
	return all
}

func (w *world) startAll(node *kubernetes.Cluster, ids []string) (all []*waiter) {
	for _, id := range ids {
		all = append(all, w.start(node, id))
	}
	return all
}

func (w *world) acquireAll(node *kubernetes.Cluster, ids []string) {
	w.t.Helper()
	for _, waits := range w.startAll(node, ids) {
		w.firstOf(waits)
	}
}

// The server refuses such requests, and they delay those that it would not.
func TestWhatAnotherHasTakenMeanwhileIsNotAskedFor(t *testing.T) {
	t.Parallel()
	w, wanted := newWorld(t), ids(4*kubernetes.StartsAtOnce)
	late, gate := w.gated("late")
	w.startAll(late, wanted)
	w.eventually("it has as many requests under way as it may", func() bool { return gate.count() == kubernetes.StartsAtOnce })

	fast := w.open("fast", patientTTL)
	w.acquireAll(fast, wanted)
	for _, id := range wanted {
		w.knows(late, id, fast)
	}
	close(gate.open)
	w.acquire(late, "another", 0) // its turn comes after theirs

	if got, want := gate.count(), kubernetes.StartsAtOnce+1; got != want {
		t.Errorf("%d requests were sent, want %d: those that were under way, and one for another id", got, want)
	}
}

// Objects that were deleted are many, as a rule, and all nodes that live put them
// back.
func TestMendingHoldsUpNothingAndStopsWhenOthersHaveDoneIt(t *testing.T) {
	t.Parallel()
	w, deleted := newWorld(t), ids(2*kubernetes.KeepsAtOnce)
	holder := w.open("holder", patientTTL)
	w.acquireAll(holder, append(deleted, "last"))
	w.make("own", "others")
	mender, gate := w.gated("mender")
	other, gateOfOther := w.gated("other")
	own := w.acquire(mender, "own", 0)
	w.release(w.acquire(other, "others", 0))
	for _, id := range append(deleted, "last") {
		w.knows(mender, id, holder)
		w.knows(other, id, holder)
	}
	holder.Crash() // who lives puts its object back by itself
	for _, id := range deleted {
		w.delete(id)
	}
	w.eventually("it mends as much at a time as it may", func() bool { return gate.count() == kubernetes.MendsAtOnce })

	t.Log("mending waits, and nothing else does")
	w.release(own)
	w.acquire(mender, "own", 0)

	t.Log("the other node has put all back")
	close(gateOfOther.open)
	for _, id := range deleted {
		w.eventually("it is there again", func() bool { return w.exists(id) })
	}
	w.acquire(other, "others", 0)
	w.knows(mender, "others", other) // and all that was before
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	close(gate.open)
	w.delete("last")
	w.eventually("it is there again", func() bool { return w.exists("last") }) // its turn comes after theirs

	if got, want := gate.count(), kubernetes.MendsAtOnce+1; got != want {
		t.Errorf("%d requests were sent, want %d: those that were under way, and one for the last id", got, want)
	}
}

// make makes objects of ids that nobody holds.
func (w *world) make(ids ...string) {
	w.t.Helper()
	node := w.open("maker", patientTTL)
	w.acquireAll(node, ids)
	if err := node.Close(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) exists(id string) bool {
	_, err := w.leases().Get(w.t.Context(), kubernetes.ObjectName(id), meta.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		w.t.Fatal(err)
	}
	return err == nil
}
