package highlandertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"highlander"
)

// These are about leases that run out. Times are those of one machine, the one
// that all nodes of the suite are on.

// longestStop is the largest StopWithin that the checks use.
func (s *script) longestStop() time.Duration { return s.fixture.TTL * 2 / 5 }

// expires checks that a lease that is held ends in the future, and within TTL.
func (s *script) expires(l *lease) time.Time {
	s.t.Helper()
	ends, now := l.Expires(), time.Now()
	s.isHeld(l) // so it has not run out meanwhile
	switch {
	case ends.IsZero():
		s.t.Fatalf("%v: Expires is zero, want a time within %v", l, s.fixture.TTL)
	case !ends.After(now):
		s.t.Fatalf("%v: Expires was %v ago while it is held", l, now.Sub(ends))
	case ends.Sub(now) > s.fixture.TTL:
		s.t.Fatalf("%v: Expires is %v from now, but leases last %v", l, ends.Sub(now), s.fixture.TTL)
	}
	return ends
}

func renewedLease(s *script) {
	l := s.acquireWith(s.nodes[0], "id", highlander.AcquireOptions{StopWithin: s.longestStop()})
	w := s.start(s.nodes[1], "id")
	s.queued("id", 1)
	for range 2 {
		first := s.expires(l)
		s.eventually("the lease outlasts its TTL", func() error {
			s.expires(l)
			if left := time.Until(first); left > 0 {
				return fmt.Errorf("it was to end in %v", left)
			}
			return nil
		})
	}
	w.stillWaits()
	s.release(l)
	s.isHeld(w.lease())
}

func longStopRefused(s *script) {
	opts := highlander.AcquireOptions{StopWithin: s.fixture.TTL}
	err := s.do("Acquire", func(ctx context.Context) error {
		_, err := s.acquireNow(ctx, s.nodes[0], "id", opts)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "StopWithin") {
		s.t.Errorf("StopWithin %v of TTL %v: error is %v, want one that names the field", opts.StopWithin, s.fixture.TTL, err)
	}
	s.seeNobody("id")
}

// cutHolderTold cuts the holder off: it is told that it loses the lease, with
// enough time to stop before anybody else has it.
func cutHolderTold(s *script) {
	s.needsCut()
	a, b := s.nodes[0], s.nodes[1]
	l := s.acquireWith(a, "id", highlander.AcquireOptions{StopWithin: s.longestStop()})
	w := s.start(b, "id")
	s.queued("id", 1)
	mend := s.fixture.Cut(s.t, a)
	defer mend()
	ends := s.lost(l)
	next := w.lease()
	if early := ends.Sub(w.at); early > 0 {
		s.t.Errorf("%v: given out %v before the %v has run out", next, early, l)
	}
	if moved := l.Expires().Sub(ends).Abs(); moved > s.longestStop()/2 {
		s.t.Errorf("%v: Expires has moved by %v since Done was closed", l, moved)
	}
	s.isHeld(next)
	mend()
	s.seeHolder("id", b, s.running...)
	again := s.start(a, "id")
	s.queued("id", 1)
	s.staysHeld(next)
	s.release(next)
	s.isHeld(again.lease())
}

// lost waits until a lease is lost, and returns when it runs out.
func (s *script) lost(l *lease) time.Time {
	s.t.Helper()
	s.receive(l.Done(), "Done of the %v is closed", l)
	told := time.Now()
	s.referee.leave(l)
	ends := l.Expires()
	s.inTime(l, told, ends)
	if err := l.Err(); !errors.Is(err, highlander.ErrLeaseLost) {
		s.t.Errorf("%v: Err is %v, want ErrLeaseLost", l, err)
	}
	return ends
}

// inTime checks that the holder of a lease was told in time that it is lost. What
// the machine is late should not count, nor what this goroutine is to notice: half
// the time is enough.
func (s *script) inTime(l *lease, told, ends time.Time) {
	late := s.pulse.Late(ends.Add(-s.longestStop()))
	if left := ends.Sub(told); left+late < s.longestStop()/2 {
		s.t.Errorf("%v: Done was closed %v before it runs out, want StopWithin, %v; the machine was late by %v", l, left, s.longestStop(), late)
	}
}

// cutMinority cuts off a node that holds nothing: it gets nothing, whatever
// becomes of the holder.
func cutMinority(s *script) {
	s.needsCut()
	a, b, c := s.nodes[0], s.nodes[1], s.nodes[2]
	l := s.acquire(b, "id")
	mend := s.fixture.Cut(s.t, a)
	defer mend()
	alone := s.start(a, "id")
	w := s.start(c, "id")
	s.eventually("the lease outlasts two TTLs", s.passes(2*s.fixture.TTL))
	s.isHeld(l)
	alone.stillWaits()
	s.release(l)
	s.isHeld(w.lease())
	alone.stillWaits()
	mend()
	s.release(w.got)
	s.isHeld(alone.lease())
}

// passes returns a condition for eventually that comes true after a time.
func (s *script) passes(d time.Duration) func() error {
	end := time.Now().Add(d)
	return func() error {
		if left := time.Until(end); left > 0 {
			return fmt.Errorf("%v are left", left)
		}
		return nil
	}
}

// leasesLast checks engines whose leases do not run out.
func leasesLast(s *script) {
	l := s.acquire(s.nodes[0], s.id("id"))
	if ends := l.Expires(); s.fixture.TTL == 0 && !ends.IsZero() {
		s.t.Errorf("%v: Expires is %v, but Fixture.TTL says that leases do not run out", l, ends)
	}
}
