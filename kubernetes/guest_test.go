package kubernetes_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	rbac "k8s.io/api/rbac/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"highlander/kubernetes"
)

// These are about what the engine is to others that use the same server.

func TestLookupNeedsTheRightToReadAndNoMore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.acquire(w.open("a", kubernetes.WithTTL(kubernetes.DefaultTTL)), "id", 0) // it is not renewed
	role, err := w.admin.RbacV1().Roles(w.namespace).Get(t.Context(), w.rights.binding.RoleRef.Name, meta.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	role.Rules = []rbac.PolicyRule{{APIGroups: role.Rules[0].APIGroups, Resources: role.Rules[0].Resources, Verbs: []string{"get", "list"}}}
	if _, err := w.admin.RbacV1().Roles(w.namespace).Update(t.Context(), role, meta.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	status := w.open("status", kubernetes.WithTTL(time.Minute)) // each request has a fifth of it
	if h, err := status.Lookup(t.Context(), "id"); err != nil || h.ID != "id" {
		t.Errorf("Lookup gives %+v, %v", h, err)
	}
	if all, err := status.Holders(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("Holders gives %+v, %v", all, err)
	}
}

// An elector of client-go sees the lease as its own kind, and so do we its.
func TestOtherElectorsTakeTurns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open("a")
	l := w.acquire(a, "id", 0)
	before := l.Token()

	elector := w.elect("id", "elector")
	defer elector.stop()
	w.eventually("the elector has seen our lease", func() bool { return elector.observed() == a.Node() })
	w.release(l)
	w.receive(elector.leads)

	waiter := w.start(a, "id")
	w.eventually("we see the elector's lease", func() bool {
		h, err := a.Lookup(t.Context(), "id")
		return err == nil && h.Node == "elector"
	})
	elector.stop()
	if l := w.firstOf(waiter); l.Token() < before+2 {
		t.Errorf("token %d after %d and that of the elector", l.Token(), before)
	}
}

// elector is client-go's, as other programs use it.
type elector struct {
	*leaderelection.LeaderElector
	leads chan struct{}
	stop  func()
}

func (e elector) observed() string { return e.GetLeader() }

func (w *world) elect(id, identity string) elector {
	w.t.Helper()
	e := elector{leads: make(chan struct{})}
	var err error
	e.LeaderElector, err = leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  meta.ObjectMeta{Namespace: w.namespace, Name: kubernetes.ObjectName(id)},
			Client:     w.admin.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
		},
		LeaseDuration: 5 * time.Second, RenewDeadline: 4 * time.Second, RetryPeriod: 200 * time.Millisecond,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) { close(e.leads) },
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { e.Run(ctx) })
	e.stop = func() {
		cancel()
		running.Wait()
	}
	return e
}

// counter counts requests that change something, by when they were made.
type counter struct {
	http.RoundTripper
	mu   sync.Mutex
	puts []time.Time
}

func (c *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPut {
		c.mu.Lock()
		c.puts = append(c.puts, time.Now())
		c.mu.Unlock()
	}
	return c.RoundTripper.RoundTrip(r)
}

// WrappedRoundTripper is how client-go finds what is inside.
func (c *counter) WrappedRoundTripper() http.RoundTripper { return c.RoundTripper }

func (c *counter) since(t time.Time) (all []time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, at := range c.puts {
		if at.After(t) {
			all = append(all, at)
		}
	}
	return all
}

// A hundred ids are renewed five times per TTL, and not all at once.
func TestRenewalsAreFewAndSpread(t *testing.T) {
	t.Parallel()
	const ids, ttl = 100, 20 * time.Second
	w := newWorld(t)
	count := &counter{}
	theirs := w.client(func(inner http.RoundTripper) http.RoundTripper {
		count.RoundTripper = inner
		return count
	})
	node, err := kubernetes.New(theirs, w.namespace, kubernetes.WithTTL(ttl))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var waiters []*waiter
	for i := range ids {
		waiters = append(waiters, w.start(node, fmt.Sprint("id", i)))
	}
	for _, waiter := range waiters {
		w.receive(waiter.done)
	}
	t.Logf("%d ids were started in %v", ids, time.Since(began))

	from, slots := time.Now(), 5
	w.eventually("two intervals pass", func() bool { return time.Since(from) > 2*ttl/5 })
	perSlot := make([]int, slots)
	puts := count.since(from)
	for _, at := range puts {
		perSlot[min(int(at.Sub(from)*time.Duration(slots)/(2*ttl/5)), slots-1)]++
	}
	t.Logf("%d renewals of %d ids in %v: %v; that is %.1f per second for the default TTL",
		len(puts), ids, 2*ttl/5, perSlot, float64(len(puts))/2*5/kubernetes.DefaultTTL.Seconds())
	if len(puts) > 3*ids {
		t.Errorf("%d renewals in two intervals, want about %d", len(puts), 2*ids)
	}
	for _, n := range perSlot {
		if n > len(puts)*3/5 {
			t.Errorf("%d of %d renewals came in a fifth of the time", n, len(puts))
		}
	}
	if err := node.Close(); err != nil {
		t.Error(err)
	}
	if _, err := theirs.CoordinationV1().Leases(w.namespace).List(t.Context(), meta.ListOptions{}); err != nil {
		t.Errorf("after Close the client does not work any more: %v", err)
	}
}

func TestARestartOfTheServerCostsNoLease(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	w := newWorldAt(t, &server.API)
	a := w.open("a", kubernetes.WithTTL(time.Minute)) // on a busy machine, it takes long to start
	l := w.acquire(a, "id", time.Second)
	expires := l.Expires()
	restart(t, server)
	w.eventually("it is renewed", func() bool { return l.Expires().After(expires.Add(time.Second)) || l.Err() != nil })
	if l.Err() != nil {
		t.Errorf("the lease is done: %v", l.Err())
	}
}
