package kubernetes_test

import (
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
	w.eventually("a renewal is refused", func() bool { return logged.count("WARN", outageBegins) > 0 })
	w.delete("x")
	w.receive(l.Done())
	// A tenth of a second apart at least, for less than the TTL.
	if tries, most := logged.count("DEBUG", outageLasts), int(shortTTL.Milliseconds()/100); tries > most {
		t.Errorf("%d requests were refused, want %d at most", tries, most)
	}
}
