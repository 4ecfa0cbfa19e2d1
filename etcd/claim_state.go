package etcd

import "slices"

// claimState is where a claim is in its life:
//
//	entering -> waiting -> won -> held -> leaving -> gone    it gets the lease, and gives it back
//	                    |      -> lost -> leaving            a renewal misses its key before that is handed out
//	                    -> lost -> leaving                   ... or before it has won
//
// A call of Acquire that ends without a lease leads from any state to leaving. What
// is leaving comes back never, and what is lost gets no lease. The goroutine that
// moves a claim to leaving, and no other, removes it.
type claimState int

const (
	claimEntering claimState = iota // nobody has told us yet that its key is there
	claimWaiting                    // its key is there; it waits for nobody if the id is free
	claimWon                        // the record says that it holds the id
	claimLost                       // its key was missed; it may have won before, and hear of it later
	claimHeld                       // its lease was handed out, and knows itself how long it is good
	claimLeaving                    // nothing runs under it any more, which etcd is being told
	claimGone                       // etcd knows, or Close has no more time for that
)

// claimMoves has the states to which each leads.
var claimMoves = map[claimState][]claimState{
	claimEntering: {claimWaiting, claimLeaving},
	claimWaiting:  {claimWon, claimLost, claimLeaving},
	claimWon:      {claimHeld, claimLost, claimLeaving},
	claimLost:     {claimLeaving},
	claimHeld:     {claimLeaving},
	claimLeaving:  {claimGone},
}

// move moves the claim on if its state leads there, and reports whether it does.
// Nothing else changes the state. The caller has the lock.
func (cl *claim) move(next claimState) bool {
	ok := slices.Contains(claimMoves[cl.state], next)
	if ok {
		cl.state = next
	}
	return ok
}

// hasKey says whether the key of the claim was there, and is not being removed.
func (s claimState) hasKey() bool { return s > claimEntering && !s.isOver() }

// isOver says whether somebody removes the claim, or has.
func (s claimState) isOver() bool { return s >= claimLeaving }
