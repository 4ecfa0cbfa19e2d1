package kubernetes_test

import (
	"fmt"
	"testing"

	"highlander/kubernetes"
)

// A server that refuses every request must not get them one after the other.
func TestAHolderWithoutRightsWhoseObjectIsDeletedDoesNotHurry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	logged := &recorder{}
	node := w.open("holder", kubernetes.WithLogger(logged.logger()))
	l := w.acquire(node, "x", 0)
	w.knows(node, "x", node)
	w.rights.deny()
	w.eventually("a renewal is refused", func() bool { return logged.count("WARN", "writing Lease objects") > 0 })
	w.delete("x")
	w.receive(l.Done())
	// A tenth of a second apart at least, for less than the TTL.
	if tries, most := logged.count("DEBUG", "writing Lease objects"), int(shortTTL.Milliseconds()/100); tries > most {
		t.Errorf("%d requests were refused, want %d at most", tries, most)
	}
}

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
