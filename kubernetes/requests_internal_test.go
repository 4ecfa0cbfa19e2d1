package kubernetes

import (
	"testing"
	"time"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
)

// A lease counts from before its renewal was sent, however long the answer takes.
func TestAWriteCountsFromItsSending(t *testing.T) {
	now := time.Hour
	clock := func() time.Duration { return now }
	client := fake.NewClientset()
	client.PrependReactor("create", "leases", func(k8stesting.Action) (bool, runtime.Object, error) {
		now += 2 * time.Second
		return false, nil, nil
	})
	r := &requests{
		leases: client.CoordinationV1().Leases("x"), clock: clock, store: newStore(clock, testTTL),
		timeout: time.Minute, keeps: make(lane, 1),
	}
	got, err := r.put(t.Context(), r.keeps, &object{ObjectMeta: meta.ObjectMeta{Name: testName}})
	if err != nil {
		t.Fatal(err)
	}
	if got.sent != time.Hour {
		t.Errorf("it counts from %v after the sending", got.sent-time.Hour)
	}
}
