package kubernetes

import "testing"

// One id is taken at once; of many that are free, others take some.
func TestTheMoreANodeHasUnderWayTheMoreTimeItLeavesToOthers(t *testing.T) {
	a := &attempt{requests: &requests{starts: make(lane, startsAtOnce)}}
	if got := a.within(); got != haste {
		t.Errorf("with nothing under way it leaves %v to others, want %v", got, haste)
	}
	for range startsAtOnce {
		before := a.within()
		if err := a.requests.starts.enter(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := a.within(); got <= before {
			t.Errorf("with %d under way it leaves %v to others, and %v with one less", len(a.requests.starts), got, before)
		}
	}
}
