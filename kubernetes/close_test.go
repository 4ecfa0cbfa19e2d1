package kubernetes_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"highlander"
	"highlander/internal/netproxy"
	"highlander/kubernetes"
)

func TestCloseReleasesAllLeases(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	node := w.open("holder", kubernetes.WithTTL(kubernetes.DefaultTTL))
	var waiters []*waiter
	for i := range 20 {
		waiters = append(waiters, w.start(node, fmt.Sprintf("id-%d", i)))
	}
	for _, waits := range waiters {
		w.firstOf(waits)
	}
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}
	for i := range waiters {
		if holder := w.get(fmt.Sprintf("id-%d", i)).Spec.HolderIdentity; holder != nil && *holder != "" {
			t.Errorf("id-%d is held by %s", i, *holder)
		}
	}
}

// noticed is a context that tells when somebody waits for its end.
type noticed struct {
	context.Context
	once sync.Once
	is   chan struct{} // closed then
}

func notice(ctx context.Context) *noticed { return &noticed{Context: ctx, is: make(chan struct{})} }

func (n *noticed) Done() <-chan struct{} {
	n.once.Do(func() { close(n.is) })
	return n.Context.Done()
}

// release starts a call of Release, and returns what receives its error.
func (n *noticed) release(l highlander.Lease) <-chan error {
	released := make(chan error, 1)
	go func() { released <- l.Release(n) }()
	return released
}

func TestCloseDoesNotWaitUntilAReleaseThatHangsHasRunOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	node := w.open("holder", kubernetes.WithTTL(10*time.Second))
	l := w.acquire(node, "id", 0)
	defer w.cut(node, (*netproxy.Proxy).Cut)()
	ctx := notice(t.Context())
	released := ctx.release(l)
	w.receive(ctx.is)

	if err := node.Close(); !errors.Is(err, highlander.ErrClosed) {
		t.Errorf("Close says %v, want that it gave up", err)
	}
	if left := time.Until(l.Expires()); left <= 0 {
		t.Errorf("it waited until the lease had run out, and for %v more", -left)
	}
	if err := <-released; !errors.Is(err, highlander.ErrClosed) {
		t.Errorf("Release says %v, want that the cluster is closed", err)
	}
}

func TestTheContextOfAReleaseThatHangsEndsIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	node := w.open("holder", kubernetes.WithTTL(10*time.Second))
	l := w.acquire(node, "id", 0)
	mend := w.cut(node, (*netproxy.Proxy).Cut)
	tired := errors.New("tired of waiting")
	cancelled, cancel := context.WithCancelCause(t.Context())
	ctx := notice(cancelled)
	released := ctx.release(l)
	w.receive(ctx.is)
	cancel(tired)

	if err := <-released; !errors.Is(err, tired) {
		t.Errorf("Release says %v, want the cause of its context", err)
	}
	if left := time.Until(l.Expires()); left <= 0 {
		t.Errorf("it waited until the lease had run out, and for %v more", -left)
	}
	mend()
}
