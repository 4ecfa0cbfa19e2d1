package gossip_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"highlander"
	"highlander/gossip"
)

// join opens a node on loopback that joins addrs.
func join(t *testing.T, name string, addrs ...string) *gossip.Cluster {
	t.Helper()
	c, err := gossip.Join(t.Context(), gossip.Config{
		Name: name, Bind: "127.0.0.1:0", Join: addrs,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestSmoke(t *testing.T) {
	a := join(t, "a")
	b := join(t, "b", a.Addr())
	c := join(t, "c", a.Addr())
	la, err := a.Acquire(t.Context(), "x", highlander.AcquireOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		next := b
		if i%2 == 1 {
			next = c
		}
		got := make(chan highlander.Lease, 1)
		go func() {
			l, err := next.Acquire(context.Background(), "x", highlander.AcquireOptions{})
			fmt.Println(err)
			got <- l
		}()
		time.Sleep(20 * time.Millisecond)
		t0 := time.Now()
		la.Release(t.Context())
		l := <-got
		fmt.Println(time.Since(t0), l.Token() > la.Token())
		la = l
	}
}
