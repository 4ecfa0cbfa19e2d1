package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"highlander"
	"highlander/etcd"
	"highlander/etcd/etcdtest"
)

// eventually waits until a condition holds; it returns what is missing.
func eventually(t *testing.T, what string, condition func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = condition(); err == nil {
			return
		}
	}
	t.Fatalf("waited in vain until %s: %v", what, err)
}

func open(t *testing.T, url string, opts ...etcd.Option) *etcd.Cluster {
	t.Helper()
	c, err := etcd.Open(url, append([]etcd.Option{etcd.WithLogger(logger())}, opts...)...)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func held(t *testing.T, l highlander.Lease) {
	t.Helper()
	if err := l.Err(); err != nil {
		t.Fatalf("the lease with token %d is lost: %v", l.Token(), err)
	}
}

// metric returns the sum of a metric of a member.
func metric(t *testing.T, s *etcdtest.Server, name string) (sum float64) {
	t.Helper()
	resp, err := http.Get("http://" + s.Endpoints()[0] + "/metrics")
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	for line := range strings.Lines(string(body)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			var value float64
			_, err := fmt.Sscan(rest, &value)
			must(t, err)
			sum += value
		}
	}
	return sum
}

func TestThousandIDsCostOneLeaseAndOneWatch(t *testing.T) {
	t.Parallel()
	s := startServer(t, 1)
	a, b := open(t, s.URL()), open(t, s.URL())
	done := make(chan highlander.Lease)
	for i := range 1000 {
		go func() { done <- acquire(t, a, fmt.Sprint(i)) }()
	}
	for range 1000 {
		<-done
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i := range 100 { // and one who waits
		go b.Acquire(ctx, fmt.Sprint(i), highlander.AcquireOptions{})
	}
	eventually(t, "100 wait", func() error {
		for i := range 100 {
			if n, err := a.KnownWaiting(t.Context(), fmt.Sprint(i)); n != 1 {
				return fmt.Errorf("%d: %d wait, %v", i, n, err)
			}
		}
		return nil
	})
	client, err := s.Client()
	must(t, err)
	defer client.Close()
	leases, err := client.Leases(t.Context())
	must(t, err)
	if len(leases.Leases) != 2 {
		t.Errorf("two processes have %d leases at the server", len(leases.Leases))
	}
	eventually(t, "two processes have two watches at the server", func() error { // claims may come before the watch
		if n := metric(t, s, "etcd_debugging_mvcc_watcher_total"); n != 2 {
			return fmt.Errorf("they have %v", n)
		}
		return nil
	})
	members, err := a.Members(t.Context())
	must(t, err)
	if len(members) != 2 || members[0].Name != a.Node() && members[1].Name != a.Node() {
		t.Errorf("members are %v", members)
	}
}

// Trap 16: a change of the leader costs no lease, and neither does a member that
// is stopped, hangs or starts again. The TTL is for a busy machine, on which an
// election takes long.
func TestLeaderChangesCostNoLease(t *testing.T) {
	t.Parallel()
	s := startServer(t, 3)
	c := open(t, s.URL(), etcd.WithTTL(30*time.Second))
	l := acquire(t, c, "id")
	for _, harm := range []struct {
		do, undo func(int) error
	}{
		{func(i int) error { s.StopMember(i); return nil }, s.StartMember},
		{s.FreezeMember, s.ThawMember},
	} {
		leader, err := s.Leader()
		must(t, err)
		must(t, harm.do(leader))
		ends := l.Expires()
		eventually(t, "the lease is renewed without the leader", func() error {
			held(t, l)
			if !l.Expires().After(ends.Add(time.Second)) {
				return errors.New("it is not")
			}
			return nil
		})
		must(t, harm.undo(leader))
	}
	held(t, l)
	must(t, l.Release(t.Context()))
}

// All nodes doing that at once is the last thing that a new leader needs.
func TestAWatchThatLosesTheLeaderDoesNotReadAllKeysAnew(t *testing.T) {
	t.Parallel()
	s := startServer(t, 3)
	var reads atomic.Int32
	ended := make(chan struct{}, 100)
	log := slog.New(ear{count("read all keys", &reads).Handler(), "the watch has ended", func() { ended <- struct{}{} }})
	c := open(t, s.URL(), etcd.WithTTL(30*time.Second), etcd.WithLogger(log))
	l := acquire(t, c, "id")
	catchUp(t, s, 2) // else the watch goes on at a member that knows less than it has told
	for i := range 2 {
		s.StopMember(i)
	}
	receive(t, ended, "the member that is left misses the leader")
	for i := range 2 {
		must(t, s.StartMember(i))
	}
	must(t, l.Release(t.Context()))
	l = acquire(t, c, "id") // which the watch tells of
	must(t, l.Release(t.Context()))
	if n := reads.Load(); n != 1 {
		t.Errorf("the node has read all keys %d times", n)
	}
}

// catchUp waits until a member has all that was written before.
func catchUp(t *testing.T, s *etcdtest.Server, member int) {
	t.Helper()
	client, err := s.Client()
	must(t, err)
	defer client.Close()
	client.SetEndpoints(client.Endpoints()[member])
	_, err = client.Get(t.Context(), "any")
	must(t, err)
}

// The whole of etcd goes away for a moment, and comes back with its data.
func TestShortRestartCostsNoLease(t *testing.T) {
	t.Parallel()
	s := startServer(t, members)
	c := open(t, s.URL(), etcd.WithTTL(30*time.Second))
	l := acquire(t, c, "id")
	must(t, s.Restart())
	ends := l.Expires()
	eventually(t, "the lease is renewed", func() error {
		held(t, l)
		if !l.Expires().After(ends.Add(time.Second)) {
			return errors.New("it is not")
		}
		return nil
	})
}

func TestProgramsClientIsLeftOpen(t *testing.T) {
	t.Parallel()
	s := startServer(t, 1, etcdtest.WithTLS())
	client, err := s.Client()
	must(t, err)
	defer client.Close()
	c, err := etcd.New(client, etcd.WithLogger(logger()), etcd.WithPrefix("/app"), etcd.WithName("me"), etcd.WithCloseTimeout(patience))
	must(t, err)
	watched := client.Watch(clientv3.WithRequireLeader(t.Context()), "/other", clientv3.WithPrefix())
	l := acquire(t, c, "id")
	must(t, c.Close())
	if err := l.Err(); !errors.Is(err, highlander.ErrClosed) {
		t.Errorf("after Close the lease ends with %v", err)
	}
	_, err = client.Put(t.Context(), "/other/key", "1")
	must(t, err)
	if resp := <-watched; resp.Err() != nil || len(resp.Events) != 1 {
		t.Errorf("the program's watch got %v, %v", resp.Events, resp.Err())
	}
	resp, err := client.Get(t.Context(), "/app/", clientv3.WithPrefix())
	must(t, err)
	if len(resp.Kvs) != 1 || string(resp.Kvs[0].Key) != "/app/held/id" {
		t.Errorf("after Close there is %v", resp.Kvs)
	}
	next := acquire(t, open(t, s.URL()+"&prefix=/app"), "id") // the URL has the ca-file
	if next.Token() <= l.Token() {
		t.Errorf("token %d follows %d", next.Token(), l.Token())
	}
}

func TestTTLTooShortToStopIsRefusedWithTheArithmetic(t *testing.T) {
	c := open(t, "etcd://127.0.0.1:1?ttl=4s")
	_, err := c.Acquire(t.Context(), "id", highlander.AcquireOptions{StopWithin: 3 * time.Second})
	want := `acquire "id": AcquireOptions.StopWithin: TTL 4s is too short to stop within 3s: less 80ms for clocks, 2s for two renewals and 100ms for a busy machine it leaves 1.82s; a TTL of at least 7s, or at most 1.82s to stop, is needed`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if check := c.CheckStopWithin(3 * time.Second); check == nil || !strings.HasSuffix(want, check.Error()) {
		t.Errorf("CheckStopWithin: %v", check)
	}
	must(t, c.CheckStopWithin(1820*time.Millisecond))
}

// The server makes a TTL longer that is not much more than its election timeout.
func TestServersShortestTTL(t *testing.T) {
	t.Parallel()
	c := open(t, sharedServer(t).URL()+"?ttl=1s", etcd.WithPrefix(newPrefix()))
	l := acquire(t, c, "id")
	eventually(t, "the lease is for the 2s that the server has granted", func() error {
		left := time.Until(l.Expires())
		switch {
		case left >= time.Second:
			return nil
		case l.Err() != nil: // on a busy machine
			must(t, l.Release(t.Context()))
			l = acquire(t, c, "id")
		}
		return fmt.Errorf("it is for %v", left)
	})
}

// An etcd that is not there is waited for, and so are Lookup and Holders.
func TestServerThatIsNotThereIsWaitedFor(t *testing.T) {
	t.Parallel()
	c := open(t, "etcd://127.0.0.1:1")
	enough := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, enough)
	defer cancel()
	if _, err := c.Acquire(ctx, "id", highlander.AcquireOptions{}); !errors.Is(err, enough) {
		t.Errorf("Acquire: %v", err)
	}
	if _, err := c.Holders(ctx); !errors.Is(err, enough) {
		t.Errorf("Holders: %v", err)
	}
	if _, err := c.Lookup(ctx, "id"); !errors.Is(err, enough) {
		t.Errorf("Lookup: %v", err)
	}
}
