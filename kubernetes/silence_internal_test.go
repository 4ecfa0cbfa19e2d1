package kubernetes

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
)

// These are about connections that are dead without anybody having told us.

// newSilence returns requests to a server that watches, and says nothing.
func newSilence() *requests {
	began := time.Now()
	clock := func() time.Duration { return time.Hour + time.Since(began) }
	client := fake.NewClientset()
	client.PrependWatchReactor("leases", func(k8stesting.Action) (bool, watch.Interface, error) {
		return true, watch.NewFake(), nil
	})
	return &requests{leases: client.CoordinationV1().Leases("x"), clock: clock, store: newStore(clock, testTTL), timeout: 3 * time.Second}
}

func TestAfterSilenceConnectionsAreNew(t *testing.T) {
	unanswered := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	for name, test := range map[string]struct {
		request   func(context.Context) error
		heard     bool // an answer to another request
		cancelled bool
		want      int
	}{
		"no answer":                  {request: unanswered, want: 1},
		"another request's answer":   {request: unanswered, heard: true},
		"the caller has had enough":  {request: unanswered, cancelled: true},
		"an error of the connection": {request: func(context.Context) error { return errors.New("reset") }},
		"an answer":                  {request: func(context.Context) error { return nil }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, hungUp := newSilence(), 0
				r.hangUp = func() { hungUp++ }
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				time.AfterFunc(time.Second, func() {
					if test.cancelled {
						cancel()
					}
					if test.heard {
						_ = r.do(t.Context(), func(context.Context) error { return nil })
					}
				})
				_ = r.do(ctx, test.request)
				if hungUp != test.want {
					t.Errorf("the connections were closed %d times, want %d", hungUp, test.want)
				}
			})
		})
	}
}

// While leases should be renewed, there is something to hear.
func TestASilentWatchIsGivenUpWhileLeasesAreHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newSilence()
		w := &watcher{requests: r, store: r.store, outage: quietOutage(r.clock), silence: testTTL / 2}
		held := &object{ObjectMeta: meta.ObjectMeta{Name: testName, ResourceVersion: "1"}}
		claim{id: "id", node: "a", token: 1, ttl: testTTL}.holds(held, time.Now())
		r.store.watched(held)

		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		version, err := w.watchOnce(ctx, "1")
		if took := time.Since(began); version != "" || err != nil || took != w.silence {
			t.Errorf("after %v the watch ends with %q, %v; want it to ask for a list after %v", took, version, err, w.silence)
		}

		began = time.Now()
		time.Sleep(testTTL) // the lease has run out
		if _, err := w.watchOnce(ctx, "1"); err != nil || ctx.Err() == nil {
			t.Errorf("without a lease the watch ends after %v (%v), want it to go on", time.Since(began), err)
		}
	})
}

// A role or a gateway may let a node list, and not watch.
func TestAWatchThatIsRefusedIsNoReasonToListAllTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lists := 0
		client := fake.NewClientset()
		client.PrependReactor("list", "leases", func(k8stesting.Action) (bool, runtime.Object, error) {
			lists++
			return false, nil, nil
		})
		client.PrependWatchReactor("leases", func(k8stesting.Action) (bool, watch.Interface, error) {
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "leases"}, "", errors.New("no right to watch"))
		})
		r := newSilence()
		r.leases = client.CoordinationV1().Leases("x")
		w := &watcher{requests: r, store: r.store, outage: quietOutage(r.clock), silence: testTTL / 2, synced: make(chan struct{}), mender: &mender{}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		w.run(ctx)
		if lists < 10 || lists > 60 {
			t.Errorf("%d lists in a minute", lists)
		}
	})
}
