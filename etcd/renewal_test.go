package etcd_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"highlander"
	"highlander/etcd"
)

// A renewal proves the claim, not only the lease: the lease lives on while the
// claim was deleted, and the watch does not say so.
func TestDeletedClaimEndsTheLeaseWithoutTheWatch(t *testing.T) {
	t.Parallel()
	c := open(t, sharedServer(t).URL(), etcd.WithPrefix(newPrefix()), etcd.WithTTL(4*time.Second))
	l, other := acquire(t, c, "id"), acquire(t, c, "other")
	c.Blind("id", "other")
	deleteClaims(t, c, "id")
	receive(t, l.Done(), "the lease is lost")
	if err := l.Err(); !errors.Is(err, highlander.ErrLeaseLost) {
		t.Errorf("it ends with %v", err)
	}
	held(t, other)
}

// The same while Acquire is about to return the lease: it begins anew.
func TestDeletedClaimIsNotHandedOut(t *testing.T) {
	t.Parallel()
	won, goOn, another := make(chan struct{}), make(chan struct{}), make(chan struct{})
	log := slog.New(ear{
		when("the claim has won", func() { close(won); <-goOn }).Handler(),
		"the claim was lost; making another", sync.OnceFunc(func() { close(another) }),
	})
	c := open(t, sharedServer(t).URL(), etcd.WithPrefix(newPrefix()), etcd.WithTTL(4*time.Second), etcd.WithLogger(log))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	acquired := make(chan highlander.Lease, 1)
	go func() {
		if l, err := c.Acquire(ctx, "id", highlander.AcquireOptions{}); err == nil {
			acquired <- l
		}
	}()
	receive(t, won, "the claim has won")
	c.Blind("id")
	deleteClaims(t, c, "id")
	must(t, c.AwaitRenewal(t.Context()))
	close(goOn)
	select {
	case <-another:
	case l := <-acquired:
		t.Errorf("the claim was deleted, and its lease goes on for %v (%v)", time.Until(l.Expires()), l.Err())
	case <-time.After(patience):
		t.Error("Acquire waits for something else")
	}
}

// The claim is won, and deleted, and the lease is renewed, and only then comes the
// answer that it was won.
func TestLeaseIsCountedFromWhatHasShownItsClaim(t *testing.T) {
	t.Parallel()
	const ttl = 8 * time.Second
	c := open(t, sharedServer(t).URL(), etcd.WithPrefix(newPrefix()), etcd.WithTTL(ttl))
	other := acquire(t, c, "other")
	hear, err := c.WinUnheard(t.Context(), "id")
	must(t, err)
	c.Blind("other", "id")
	deleteClaims(t, c, "id")
	deleted := etcd.Now()
	for range 2 {
		must(t, c.AwaitRenewal(t.Context()))
	}
	l := hear()
	held(t, l)
	if late := l.Until() - (deleted + ttl); late > 0 {
		t.Errorf("the lease ends %v after others may start", late)
	}
	receive(t, l.Done(), "the next renewal looks for the claim")
	held(t, other)
}

// deleteClaims deletes the claims of a node on an id by hand.
func deleteClaims(t *testing.T, c *etcd.Cluster, id string) {
	t.Helper()
	client, err := sharedServer(t).Client()
	must(t, err)
	defer client.Close()
	for _, key := range c.ClaimKeys(id) {
		resp, err := client.Delete(t.Context(), key)
		must(t, err)
		if resp.Deleted != 1 {
			t.Fatalf("%s was not there", key)
		}
	}
}
