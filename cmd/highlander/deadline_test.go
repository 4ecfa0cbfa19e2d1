package main

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fakeLease expires when the test says so.
type fakeLease struct{ expires atomic.Value } // time.Time

func leaseUntil(t time.Time) *fakeLease {
	l := &fakeLease{}
	l.expires.Store(t)
	return l
}

func (l *fakeLease) Expires() time.Time { return l.expires.Load().(time.Time) }

// fakeGuard knows its deadline.
type fakeGuard struct{ deadline atomic.Value } // time.Time

func (g *fakeGuard) set(t time.Time) { g.deadline.Store(t) }

func (g *fakeGuard) mustKillIn(t *testing.T, want time.Duration) {
	t.Helper()
	synctest.Wait()
	if got := time.Until(g.deadline.Load().(time.Time)); got != want {
		t.Errorf("the command lives for another %v, want %v", got, want)
	}
}

// keep is what Serve does while the command runs.
func keep(t *testing.T, lease *fakeLease, runsOut bool) *fakeGuard {
	t.Helper()
	g := &fakeGuard{}
	d := &deadline{lease: lease, runsOut: runsOut, set: g.set}
	go d.keepExtending(t.Context())
	synctest.Wait()
	return g
}

func TestCommandLivesWhileHighlanderDoesWhereLeasesDoNotRunOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := keep(t, leaseUntil(time.Time{}), false)
		g.mustKillIn(t, frozenAfter)
		time.Sleep(time.Hour)
		g.mustKillIn(t, frozenAfter)
		time.Sleep(aliveEvery - 1)
		g.mustKillIn(t, frozenAfter-aliveEvery+1)
	})
}

func TestCommandIsKilledBeforeItsLeaseRunsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 3 * time.Second
		lease := leaseUntil(time.Now().Add(ttl))
		g := keep(t, lease, true)
		g.mustKillIn(t, ttl-killMargin)
		for range 100 { // it is renewed
			time.Sleep(ttl / 4)
			lease.expires.Store(time.Now().Add(ttl))
			time.Sleep(ttl / 8) // seen within that time
			g.mustKillIn(t, ttl-ttl/8-killMargin)
		}
		time.Sleep(ttl) // and not any more, though this process lives
		g.mustKillIn(t, -killMargin-ttl/8)
		lease.expires.Store(time.Time{}) // nor does the engine know the end of it any more
		time.Sleep(time.Second)
		g.mustKillIn(t, -killMargin-ttl/8-time.Second)
	})
}

// A short lease is looked at more often, but never without a pause.
func TestDeadlineFollowsShortLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lease := leaseUntil(time.Now().Add(400 * time.Millisecond))
		g := keep(t, lease, true)
		lease.expires.Store(time.Now().Add(time.Second))
		time.Sleep(50 * time.Millisecond)
		g.mustKillIn(t, 950*time.Millisecond-killMargin)

		looks, d := 0, &deadline{lease: lease, runsOut: true, set: func(time.Time) {}}
		lease.expires.Store(time.Now().Add(-time.Hour))
		for begin := time.Now(); time.Since(begin) < time.Second; looks++ {
			time.Sleep(d.extend())
		}
		if looks > 1000 {
			t.Errorf("%d looks a second", looks)
		}
	})
}

// An engine whose leases run out knows until when. One that does not say so gets no
// command started.
func TestNoCommandLivesOnALeaseOfUnknownEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lease := leaseUntil(time.Time{})
		g := keep(t, lease, true)
		if at := g.deadline.Load().(time.Time); at.IsZero() || at.After(time.Now()) {
			t.Errorf("the command may live until %v", at)
		}
		lease.expires.Store(time.Now().Add(3 * time.Second))
		time.Sleep(aliveEvery)
		g.mustKillIn(t, 3*time.Second-aliveEvery-killMargin)
	})
}

func TestDeadlineIsKeptNoLongerThanTheCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		d := &deadline{lease: leaseUntil(time.Time{}), set: func(time.Time) {}}
		d.keepExtending(ctx) // returns
	})
}
