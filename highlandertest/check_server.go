package highlandertest

import (
	"fmt"
	"testing"
	"time"

	"highlander"
)

// These are about a server that fails, and about leases that are harmed there.
// Each time the children must not overlap, though they take as long to stop as
// they may, nobody may start before a lease has run out that was not released,
// and everybody is back when the server is.

// outage is how one fault meets a cluster in which a holds an id that b and c
// wait for.
type outage struct {
	*script
	timeline *timeline
	runners  []*runner // of a, b and c, and of a newcomer
	lease    *lease    // of a
}

const outageID = "id"

// newOutage has a hold the id, with a child that takes until the end of its lease
// to stop. The others' are fast.
func newOutage(s *script) *outage {
	o := &outage{script: s, timeline: &timeline{}}
	o.start(s.nodes[0], stopsAtTheEnd)
	_, o.lease = s.waitUntilHeld(outageID, o.runners[0])
	o.start(s.nodes[1], stopsWithin)
	o.start(s.nodes[2], stopsWithin)
	s.queued(outageID, 2)
	return o
}

func (o *outage) start(node highlander.Cluster, stops stopping) *runner {
	r := o.script.run(o.timeline, node, outageID, stops)
	o.runners = append(o.runners, r)
	return r
}

// newcomer has a node of that name appear that has seen nothing of what was
// before.
func (o *outage) newcomer(name string) { o.start(o.open(name), stopsWithin) }

// settled waits until a lease that something has happened to is lost, or has
// clearly outlasted it.
func (o *outage) settled(l *lease, fault time.Time) {
	o.t.Helper()
	o.eventually(fmt.Sprintf("the %v is lost, or outlasts its TTL", l), func() error {
		if left := o.fixture.TTL - time.Since(fault); l.Err() == nil && left > 0 {
			return fmt.Errorf("it is held, and %v of the TTL are left", left)
		}
		return nil
	})
}

// mustBeLost checks that a has lost its lease.
func (o *outage) mustBeLost() {
	o.t.Helper()
	if o.lease.Err() == nil {
		o.t.Errorf("the %v is held, though the holder has not heard from the server for a TTL", o.lease)
	}
}

// runsOut waits until a lease that is lost has run out.
func (o *outage) runsOut(l *lease) {
	o.t.Helper()
	o.eventually(fmt.Sprintf("the %v has run out", l), func() error {
		if left := time.Until(l.Expires()); l.Err() != nil && left > 0 {
			return fmt.Errorf("%v are left", left)
		}
		return nil
	})
}

// breaks has something break, and a newcomer appear at that moment. It mends it
// when a was told that its lease is lost: while the child stops, a renewal that
// gets through must not make anything better or worse.
func (o *outage) breaks(fault func(t *testing.T) (mend func())) {
	o.t.Helper()
	began := time.Now()
	mend := fault(o.t)
	defer mend()
	o.newcomer("d")
	o.settled(o.lease, began)
	mend()
	o.eventually("the server has had the time to give the id to somebody else", o.passes(o.fixture.TTL/4))
	o.runsOut(o.lease)
}

func serverRestarts(s *script) {
	s.needs(s.fixture.Server.Restart != nil, "Restart")
	o := newOutage(s)
	began := time.Now()
	s.fixture.Server.Restart(s.t)
	o.newcomer("d")
	o.settled(o.lease, began)
	o.runsOut(o.lease)
	s.eachHasItsTurn(o.runners)
}

func serverHangs(s *script) {
	s.needs(s.fixture.Server.Hang != nil, "Hang")
	o := newOutage(s)
	o.breaks(s.fixture.Server.Hang)
	o.mustBeLost()
	s.eachHasItsTurn(o.runners)
}

// credentialsDenied may leave the sessions that are open as they are.
func credentialsDenied(s *script) {
	s.needs(s.fixture.Server.Deny != nil, "Deny")
	o := newOutage(s)
	o.breaks(s.fixture.Server.Deny)
	s.eachHasItsTurn(o.runners)
}

// holderUnheard drops what the holder sends: others get the id when its lease has
// run out.
func holderUnheard(s *script) {
	s.needs(s.fixture.Server.CutSend != nil, "CutSend")
	o := newOutage(s)
	mend := s.fixture.Server.CutSend(s.t, s.nodes[0])
	defer mend()
	o.newcomer("d")
	s.waitUntilHeld(outageID, o.runners[1:]...)
	mend()
	s.eachHasItsTurn(o.runners)
}

// holderDeaf drops what the holder is sent: that the server hears it is of no use,
// as it cannot know.
func holderDeaf(s *script) {
	s.needs(s.fixture.Server.CutReceive != nil, "CutReceive")
	o := newOutage(s)
	o.breaks(func(t *testing.T) func() { return s.fixture.Server.CutReceive(t, s.nodes[0]) })
	o.mustBeLost()
	s.eachHasItsTurn(o.runners)
}

// waiterDeaf drops what a waiter is sent, which is the news that it has the lease:
// the others get it all the same.
func waiterDeaf(s *script) {
	s.needs(s.fixture.Server.CutReceive != nil, "CutReceive")
	o := &outage{script: s, timeline: &timeline{}}
	o.start(s.nodes[0], stopsAtTheEnd)
	s.waitUntilHeld(outageID, o.runners...)
	o.start(s.nodes[1], stopsWithin)
	s.queued(outageID, 1)
	mend := s.fixture.Server.CutReceive(s.t, s.nodes[1])
	defer mend()
	o.runners[0].stop()
	s.eventually("the deaf waiter has the time to get the lease", s.passes(s.fixture.TTL/2))
	o.start(s.nodes[2], stopsWithin)
	o.newcomer("d")
	s.waitUntilHeld(outageID, o.runners[2:]...)
	mend()
	s.eachHasItsTurn(o.runners[1:])
}

// shortHang is over before a lease is in danger.
func shortHang(s *script) {
	s.needs(s.fixture.Server.Hang != nil, "Hang")
	o := newShortOutage(s)
	resume := s.fixture.Server.Hang(s.t)
	defer resume()
	s.eventually("a tenth of the TTL passes", s.passes(s.fixture.TTL/10))
	resume()
	o.keeps()
}

// shortRestart is over before a lease is in danger.
func shortRestart(s *script) {
	s.needs(s.fixture.Server.Restart != nil, "Restart")
	if !s.fixture.Server.LeasesOutliveRestart {
		s.t.Skip("Server.LeasesOutliveRestart is false: a holder may lose its leases with the server")
	}
	o := newShortOutage(s)
	s.fixture.Server.Restart(s.t)
	o.keeps()
}

// shortOutage is one that a lease outlasts whose holder needs little time to stop.
type shortOutage struct {
	*script
	lease  *lease
	waiter *waiter
}

func newShortOutage(s *script) shortOutage {
	l := s.acquireWith(s.nodes[0], "id", highlander.AcquireOptions{StopWithin: s.fixture.TTL / 10})
	w := s.start(s.nodes[1], "id")
	s.queued("id", 1)
	return shortOutage{s, l, w}
}

// keeps checks that the holder keeps its lease.
func (o shortOutage) keeps() {
	o.t.Helper()
	o.eventually("the TTL passes", o.passes(o.fixture.TTL))
	o.isHeld(o.lease)
	o.expires(o.lease)
	o.waiter.stillWaits()
	o.release(o.lease)
	o.isHeld(o.waiter.lease())
}

// harmed does harm to a lease, twice: the first child takes to the end of its
// lease to stop, without a word; the second one is faster and says so. A newcomer
// appears each time.
func harmed(harm Harm) func(*script) {
	return func(s *script) {
		o := newOutage(s)
		began := time.Now()
		harm.Do(s.t, s.nodes[0], outageID)
		o.newcomer("d")
		o.settled(o.lease, began)
		o.runsOut(o.lease)
		o.runners[0].stop()

		holder, l := s.waitUntilHeld(outageID, o.runners[1:]...)
		again := time.Now()
		harm.Do(s.t, holder.node, outageID)
		o.newcomer("e")
		o.settled(l, again)
		s.eachHasItsTurn(o.runners[1:])
	}
}

// needs skips the check if the server cannot be treated so.
func (s *script) needs(there bool, function string) {
	s.t.Helper()
	if !there {
		s.t.Skipf("Server.%s is nil: there is no way to do that to the server of this engine", function)
	}
}
