package postgres

import (
	"testing"
	"time"

	"highlander"
)

// The server has taken the claim out of the queue before it was given up.
func TestClaimGivenUpAsItIsServedIsInNoQueue(t *testing.T) {
	n := newNode(&config{}, func() time.Duration { return time.Hour })
	cl := n.newClaim("id", highlander.AcquireOptions{})
	n.claim(cl)
	cl.queued = true
	if !n.giveUp(cl) {
		t.Fatal("somebody else was first")
	}
	h := &hold{id: "id"}
	n.grant(cl, h)
	n.doAll()
	if want := n.wantedState(&session{number: 1}); want.waiters != 0 || len(n.leaving) != 0 {
		t.Errorf("%d waiters are looked for at the server, and %d are to leave; want none", want.waiters, len(n.leaving))
	}
	if !h.giveBack || h.lease != nil {
		t.Error("it is not given back")
	}
}
