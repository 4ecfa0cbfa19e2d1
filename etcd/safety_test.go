package etcd_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"highlander"
	"highlander/etcd"
	"highlander/internal/netproxy"
)

// Trap 7: a lease runs out before that of the server, however late its answers
// come. It is renewed all the same, also if the first try took too long.
func TestSlowAnswersDoNotMakeALeaseLonger(t *testing.T) {
	t.Parallel()
	// The server tells how much is left to a second, and 2 % of the TTL are for
	// clocks: that, and no more, could hide behind a delay. A renewal is two
	// requests, and may take an eighth of the TTL at first.
	const ttl, delay = 30 * time.Second, 2 * time.Second
	s := sharedServer(t)
	c := open(t, s.URLFor(slowly(t, s.Endpoints()[0], delay)), etcd.WithPrefix(newPrefix()), etcd.WithTTL(ttl))
	l := acquire(t, c, "id")
	client, err := s.Client()
	must(t, err)
	defer client.Close()
	check := func() (ends time.Time) {
		t.Helper()
		held(t, l)
		ends = l.Expires()
		resp, err := client.TimeToLive(t.Context(), c.Lease())
		must(t, err)
		if after := ends.Sub(time.Now().Add(time.Duration(resp.TTL+1) * time.Second)); after > 0 {
			t.Fatalf("the lease runs out %v after that of the server", after)
		}
		return ends
	}
	granted := check()
	must(t, c.AwaitRenewal(t.Context()))
	if ends := check(); !ends.After(granted.Add(time.Second)) {
		t.Errorf("it was renewed, and runs out at %v, which was %v", ends, granted)
	}
}

// A record that somebody has deleted while the holder could not tell etcd anything
// is put back as soon as it can.
func TestRecordIsPutBackWhenEtcdAnswersAgain(t *testing.T) {
	t.Parallel()
	log, failed := listenFor("the record was not put back; trying again")
	f := newFixture(t, sharedServer(t))
	f.ttl, f.log = 30*time.Second, log
	c := f.open(t, "a").Cluster
	t.Cleanup(func() { c.Close() })
	l := acquire(t, c, "id")
	client, err := f.server.Client()
	must(t, err)
	defer client.Close()
	observer := open(t, f.server.URL(), etcd.WithPrefix(f.prefix))

	mend := f.each(c, (*netproxy.Proxy).CutSend)
	_, err = client.Delete(t.Context(), c.RecordKey("id"))
	must(t, err)
	receive(t, failed, "the holder has tried to put its record back")
	mend()
	eventually(t, "the record is back", func() error {
		h, err := observer.Lookup(t.Context(), "id")
		if err == nil && (h.Node != c.Node() || h.Token != l.Token()) {
			t.Errorf("put back was %+v", h)
		}
		return err
	})
	held(t, l)
}

// The mark of a release tells those who have seen the holder that nothing of it
// runs any more: without it they would wait for its TTL, which is more than this
// test does.
func TestReleasedIDIsTakenWithoutAWait(t *testing.T) {
	t.Parallel()
	s, prefix := sharedServer(t), newPrefix()
	a := open(t, s.URL(), etcd.WithPrefix(prefix), etcd.WithTTL(10*patience))
	b := open(t, s.URL(), etcd.WithPrefix(prefix), etcd.WithTTL(10*patience))
	last := acquire(t, a, "id")
	waiting, cancel := context.WithCancel(t.Context())
	gaveUp := make(chan struct{})
	go func() {
		defer close(gaveUp)
		b.Acquire(waiting, "id", highlander.AcquireOptions{})
	}()
	waits := func(want int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d wait", want), func() error {
			n, err := b.KnownWaiting(t.Context(), "id")
			if err == nil && n != want {
				err = fmt.Errorf("%d wait", n)
			}
			return err
		})
	}
	waits(1)
	cancel()
	receive(t, gaveUp, "Acquire returns")
	waits(0)
	for _, next := range []*etcd.Cluster{b, a, b} {
		must(t, last.Release(t.Context()))
		l := acquire(t, next, "id")
		if l == nil {
			t.Fatal("it was not acquired")
		}
		if l.Token() <= last.Token() {
			t.Errorf("token %d follows %d", l.Token(), last.Token())
		}
		last = l
	}
	must(t, last.Release(t.Context()))
}

// A transaction of a claim that was given up is carried out after all, and the
// watch says so before the claim is forgotten.
func TestClaimThatComesLateIsGivenUp(t *testing.T) {
	t.Parallel()
	s, prefix := sharedServer(t), newPrefix()
	client, err := s.Client()
	must(t, err)
	defer client.Close()
	var c *etcd.Cluster
	log := when("the claim was given up", func() {
		put, err := client.Put(t.Context(), c.ClaimKeys("id")[0], "{}")
		if err != nil {
			t.Error(err)
			return
		}
		c.AwaitSight("id", put.Header.Revision)
	})
	c = open(t, s.URL(), etcd.WithPrefix(prefix), etcd.WithLogger(log))
	must(t, acquire(t, c, "id").Release(t.Context()))
	awaitKeys(t, client, prefix+"/claim/", "the claim is given up once more", func(claims map[string]string) bool { return len(claims) == 0 })
	held(t, acquire(t, c, "id"))
}
