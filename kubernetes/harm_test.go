package kubernetes_test

import (
	"context"
	"errors"
	"testing"
	"time"

	coordination "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"highlander"
	"highlander/internal/netproxy"
	"highlander/kubernetes"
)

func TestADeletedObjectComesBackAndTheChildDoesNotNotice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open("a", kubernetes.WithTTL(kubernetes.DefaultTTL))
	l := w.acquire(a, "id", time.Second)
	before := w.get("id")
	w.delete("id")
	w.eventually("the object is there again", func() bool {
		o, err := w.leases().Get(t.Context(), before.Name, meta.GetOptions{})
		return err == nil && o.UID != before.UID
	})
	after := w.get("id")
	if *after.Spec.HolderIdentity != a.Node() || *after.Spec.LeaseTransitions != *before.Spec.LeaseTransitions {
		t.Errorf("the object says %+v, want what it said before: %+v", after.Spec, before.Spec)
	}
	if err := l.Err(); err != nil {
		t.Errorf("the lease is done: %v", err)
	}
}

// The holder does not hear that its object is deleted. Who waits for it puts it
// back, so that a node which has never seen it waits, too.
func TestADeletedObjectOfAHolderThatIsCutOffIsPutBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.open("a"), w.open("b")
	l := w.acquire(a, "id", time.Second)
	waiter := w.start(b, "id")
	w.knows(b, "id", a)
	defer w.cut(a, (*netproxy.Proxy).Cut)()
	w.delete("id")
	newcomer := w.start(w.open("c"), "id")

	first := w.firstOf(waiter, newcomer)
	if early := time.Until(l.Expires()); early > 0 {
		t.Errorf("another node has it %v before the lease of the first has run out", early)
	}
	if first.Token() <= l.Token() {
		t.Errorf("token %d after %d", first.Token(), l.Token())
	}
}

// What a benchmark leaves has been held by nodes that were killed, and other nodes of
// the namespace have seen it.
func TestWhatDeleteAllDeletesIsNotPutBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.open("a"), w.open("b")
	w.acquire(a, "bench-id", time.Second)
	w.acquire(b, "user-id", time.Second)
	w.knows(b, "bench-id", a)
	defer w.cut(a, (*netproxy.Proxy).Cut)()
	admin, err := kubernetes.New(w.admin, w.namespace)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if err := admin.DeleteAll(t.Context(), "bench-"); err != nil {
		t.Fatal(err)
	}
	w.release(w.acquire(b, "another-id", 0)) // settles for longer than it takes to put an object back
	left, err := w.leases().List(t.Context(), meta.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range left.Items {
		if l.Name == kubernetes.ObjectName("bench-id") {
			t.Errorf("it was put back: %v", l)
		}
	}
}

// A node that does not wait for the id knows its last token all the same.
func TestTokensGrowThoughTheObjectWasDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open("a")
	var last uint64
	for range 3 {
		l := w.acquire(a, "id", 0)
		last = l.Token()
		w.release(l)
	}
	w.delete("id")
	if l := w.acquire(w.open("b"), "id", 0); l.Token() <= last {
		t.Errorf("token %d after %d", l.Token(), last)
	}
}

func TestAHolderThatAHandHasRemovedIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("a"), w.open("b")
	l := w.acquire(a, "id", time.Second)
	waiter := w.start(b, "id")
	w.knows(b, "id", a)
	a.Crash()
	w.edit("id", func(o *coordination.Lease) { o.Spec.HolderIdentity, o.Spec.LeaseDurationSeconds = nil, new(int32(1)) })

	w.firstOf(waiter)
	if early := time.Until(l.Expires()); early > 0 {
		t.Errorf("another node has it %v before the lease of the first has run out", early)
	}
}

func TestAnotherHolderIsAConflict(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open("a", kubernetes.WithTTL(kubernetes.DefaultTTL))
	l := w.acquire(a, "id", time.Second)
	w.edit("id", func(o *coordination.Lease) { o.Spec.HolderIdentity = new("somebody") })
	w.receive(l.Done())
	if !errors.Is(l.Err(), highlander.ErrConflict) {
		t.Errorf("the lease is done with %v, want ErrConflict", l.Err())
	}
	w.release(l)
	if holder := *w.get("id").Spec.HolderIdentity; holder != "somebody" {
		t.Errorf("after Release the holder is %q", holder)
	}
}

func TestTheObjectOfAnotherProgramIsLeftAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	theirs := &coordination.Lease{
		ObjectMeta: meta.ObjectMeta{Name: kubernetes.ObjectName("id")},
		Spec:       coordination.LeaseSpec{HolderIdentity: new("controller")},
	}
	theirs, err := w.leases().Create(t.Context(), theirs, meta.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	a := w.open("a")
	_, err = a.Acquire(t.Context(), "id", highlander.AcquireOptions{})
	want := `kubernetes: the id "id" needs the Lease object ` + w.namespace + "/" + theirs.Name + `, but that is another program's (annotation highlander/id is "", label app.kubernetes.io/managed-by is "", holder "controller"); rename the id or remove the object`
	if err == nil || err.Error() != want {
		t.Errorf("error %v\nwant  %v", err, want)
	}
	if now := w.get("id"); now.ResourceVersion != theirs.ResourceVersion {
		t.Errorf("the object was changed to %+v", now)
	}
	if _, err := a.Lookup(t.Context(), "id"); !errors.Is(err, highlander.ErrNotHeld) {
		t.Errorf("Lookup says %v, want ErrNotHeld", err)
	}
	w.delete("id")
	w.acquire(a, "id", 0)
}

// Without the right to watch, nothing is written: a node must know who has the id.
func TestANodeWithoutRightsWaitsAndSaysSoOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rights.deny()
	w.eventually("the rights are gone", func() bool {
		_, err := w.open("x").Lookup(t.Context(), "id")
		return apierrors.IsForbidden(err)
	})
	var log recorder
	a := w.open("a", kubernetes.WithLogger(log.logger()))
	waiter := w.start(a, "id")
	w.eventually("it was refused several times", func() bool { return log.count("DEBUG", outageLasts) > 1 })
	if n := log.count("WARN", outageBegins); n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
	w.rights.allow()
	w.firstOf(waiter)
	w.saysItIsOver(&log)
}

func TestWrongCredentialsAreRetriedUntilTheContextEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.access.BearerToken = "wrong"
	a := w.open("a", kubernetes.WithTTL(time.Minute)) // each request has a fifth of it
	if _, err := a.Lookup(t.Context(), "id"); !apierrors.IsUnauthorized(err) {
		t.Errorf("Lookup says %v, want it unauthorized", err)
	}
	tired := errors.New("tired of waiting")
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, tired)
	defer cancel()
	if _, err := a.Acquire(ctx, "id", highlander.AcquireOptions{}); !errors.Is(err, tired) {
		t.Errorf("Acquire says %v, want the cause of its context", err)
	}
}
