package etcd

import "testing"

// step is where a claim is to be moved, and whether its state leads there.
type step struct {
	next claimState
	ok   bool
}

func TestLifeOfAClaim(t *testing.T) {
	for name, life := range map[string][]step{
		"its lease is handed out and given back": {{claimWaiting, true}, {claimWon, true}, {claimHeld, true}, {claimLeaving, true}, {claimGone, true}},
		"it is given up before its key is there": {{claimLeaving, true}, {claimWaiting, false}, {claimGone, true}},
		"it is given up while it waits":          {{claimWaiting, true}, {claimLeaving, true}, {claimWon, false}, {claimGone, true}},
		"it is given up when it has won":         {{claimWaiting, true}, {claimWon, true}, {claimLeaving, true}, {claimHeld, false}, {claimGone, true}},
		"it is lost when it has won":             {{claimWaiting, true}, {claimWon, true}, {claimLost, true}, {claimHeld, false}, {claimLeaving, true}},
		"it is lost, and hears that it had won":  {{claimWaiting, true}, {claimLost, true}, {claimWon, false}, {claimHeld, false}, {claimLeaving, true}},
		"what it holds is the lease's to lose":   {{claimWaiting, true}, {claimWon, true}, {claimHeld, true}, {claimLost, false}, {claimLeaving, true}},
		"two give it up: one removes it":         {{claimWaiting, true}, {claimLeaving, true}, {claimLeaving, false}, {claimGone, true}, {claimLeaving, false}},
		"it has not won what it does not hold":   {{claimHeld, false}, {claimWon, false}, {claimLost, false}, {claimWaiting, true}, {claimHeld, false}},
	} {
		t.Run(name, func(t *testing.T) {
			cl := &claim{}
			for i, step := range life {
				before := cl.state
				if ok := cl.move(step.next); ok != step.ok {
					t.Fatalf("step %d leads from %d to %d: %v, want %v", i, before, step.next, ok, step.ok)
				}
				if want := map[bool]claimState{true: step.next, false: before}[step.ok]; cl.state != want {
					t.Fatalf("after step %d it is at %d, want %d", i, cl.state, want)
				}
			}
		})
	}
}
