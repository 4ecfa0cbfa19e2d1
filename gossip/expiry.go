package gossip

import (
	"time"

	"highlander/internal/claims"
)

// In quorum mode leases run out. That is watched by the clock that goes on while
// the machine is suspended, for which Go has no timer: its timers stand still
// then. So while this node has a lease, the clock is looked at again and again,
// which is a few microseconds of work. A timerfd of that clock would do without,
// but on Linux alone, and not for the clock of a test.
const clockEvery = 100 * time.Millisecond

// expiry is when this node has to look at what runs out.
type expiry struct {
	alarm    *time.Timer
	watching bool          // a lease is held, or was until a moment ago
	look     time.Duration // watching: when to look at those that are held
}

// watchExpiry makes sure that the holder is told before a lease runs out.
func (a *agent) watchExpiry(l *lease) {
	if !a.inQuorumMode() {
		return
	}
	a.expiry.watch(a.tellBy(l))
}

func (e *expiry) watch(at time.Duration) {
	if !e.watching || at < e.look {
		e.watching, e.look = true, at
	}
}

// tellBy returns when the holder of a lease has to be told that it runs out, as
// far as renewals are known.
func (a *agent) tellBy(l *lease) time.Duration {
	ends := a.machine.Expires(l.claim)
	l.ends.Store(int64(ends))
	return ends - l.stopWithin - a.c.rules().early()
}

// lookAtTheTime does what is due by now. It comes before every other input.
func (a *agent) lookAtTheTime(now claims.Instant) {
	if !a.inQuorumMode() {
		return
	}
	a.machine.Advance(now)
	a.carryOutEvents(now)
	if !a.expiry.watching || now.Up < a.expiry.look {
		return
	}
	a.expiry.watching = false
	var late []*lease
	for _, l := range a.leases {
		if l.phase != leaseHeld {
			continue
		}
		if at := a.tellBy(l); at > now.Up {
			a.expiry.watch(at)
			continue
		}
		l.lose()
		late = append(late, l)
	}
	for _, l := range late { // when all holders know: a log may block
		left := time.Duration(l.ends.Load()) - now.Up
		a.log.Warn("the lease was not renewed in time; stopping",
			append([]any{"id", l.id, "token", l.Token(), "left", left.Round(10 * time.Millisecond)}, a.whoRenews(now, l)...)...)
	}
}

// whoRenews tells who has answered recently enough for l to be kept, and who has
// not.
func (a *agent) whoRenews(now claims.Instant, l *lease) []any {
	r := a.c.rules()
	s := a.machine.Support(l.claim, now.Up-(r.ttl-r.ttl/clockShare-l.stopWithin-r.early()))
	told := []any{"votes", s.Votes, "needed", r.quorum}
	for _, who := range []struct {
		what  string
		names []string
	}{{"silent", s.Silent}, {"not_voting", s.NoVote}, {"out_of_view", s.Gone}} {
		if len(who.names) > 0 {
			told = append(told, who.what, who.names)
		}
	}
	return told
}

// setAlarm makes the goroutine look at the time when something is due.
func (a *agent) setAlarm() {
	if !a.inQuorumMode() {
		return
	}
	next, due := a.machine.NextAdvance()
	if a.expiry.watching && (!due || a.expiry.look < next) {
		next, due = a.expiry.look, true
	}
	if !due {
		a.expiry.alarm.Stop()
		return
	}
	wait := next - a.up()
	if a.expiry.watching {
		wait = min(wait, clockEvery)
	}
	a.expiry.alarm.Reset(max(wait, time.Millisecond))
}
