package etcd

import (
	"fmt"
	"slices"
	"testing"
)

// What gives a claim up must not overtake what makes it, so the second one waits,
// whoever is free to send it.
func TestTransactionsOfAnIDAreSentOneAfterTheOther(t *testing.T) {
	b := &batches{senders: 2}
	for _, name := range []string{"a1", "a2", "b1", "a3", "b2"} {
		b.queue = append(b.queue, &transaction{id: name[:1], answer: make(chan answer, 1)})
	}
	sent := func(batch []*transaction) (ids []string) {
		for _, t := range batch {
			ids = append(ids, t.id)
		}
		return ids
	}
	expect := func(batch []*transaction, want ...string) []*transaction {
		t.Helper()
		if got := sent(batch); !slices.Equal(got, want) {
			t.Fatalf("sent are %v, want %v", got, want)
		}
		return batch
	}
	order := slices.Clone(b.queue)
	first := expect(b.next(nil), "a", "b")
	expect(b.next(nil)) // another sender, which ends
	second := expect(b.next(first), "a", "b")
	third := expect(b.next(second), "a")
	expect(b.next(third))
	if got := fmt.Sprint(first[0] == order[0], second[0] == order[1], third[0] == order[3], b.senders); got != "true true true 0" {
		t.Errorf("in order, and senders left: %s", got)
	}
}
