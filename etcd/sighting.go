package etcd

import "time"

// Nobody is told afterwards whether a lease has run out or was revoked: the claim
// is gone either way. So those who wait look at what is left of the lease of the
// holder while it is there. When they have seen that less than its grace was
// left, no renewal counts any more (a holder does not accept one that comes so
// late), and its child ends with what was left, whatever becomes of the lease.

// Shares of the TTL.
const (
	graceShare  = 4  // within the last quarter a renewal does not count
	acceptSlack = 25 // 4 % for clocks that run at different rates
)

// graceOf returns how much of a lease is left at least when its holder accepts a
// renewal.
func graceOf(ttl time.Duration) time.Duration { return ttl / graceShare }

// acceptWithin returns how long after the sending of the last renewal that
// succeeded the answer to the next one may come.
func acceptWithin(ttl time.Duration) time.Duration { return ttl - graceOf(ttl) - ttl/acceptSlack }

// Steps of looking, as shares of the TTL.
const (
	lookShare  = 8  // as a rule
	closeShare = 40 // where it matters
)

// sighting is what was seen of the lease of a holder, by the clock of the one who
// looks.
type sighting struct {
	ttl time.Duration

	seen   bool
	sent   time.Duration // of the last question
	left   int64         // the last answer
	latest time.Duration // the lease runs out no later, unless it is renewed after the last answer
	pinned bool          // latest is more exact than a second
	final  bool          // no renewal counts any more: latest stands, if that is true
}

// mostLeft is more than any lease of ours has, and as much as can be reckoned with.
const mostLeft = int64(365 * 24 * time.Hour / time.Second)

// observe takes the answer to how many whole seconds were left of the lease. That
// was true at some moment between the sending of the question and the receipt of
// the answer, and up to a second more was left. Of a lease that is gone or going
// (left is negative) nothing is known.
//
// The member that takes itself for the leader answers without asking the others,
// so one that was frozen may say that far too little is left. What is final is
// taken back when a later answer contradicts it.
func (s *sighting) observe(sent, received time.Duration, left int64) {
	left = min(left, mostLeft)
	if left < 0 || s.final && leastLeft(left) <= s.latest-sent {
		return
	}
	most := time.Duration(left+1) * time.Second
	latest := received + most
	pinned := false
	if s.seen && !s.final && most <= s.ttl-(received-s.sent) { // a renewal in between would have left more
		latest = min(latest, s.latest)
		pinned = s.pinned || left < s.left && received-s.sent < 3*s.quick()
	}
	s.seen, s.sent, s.left, s.latest, s.pinned = true, sent, left, latest, pinned
	s.final = latest-sent <= graceOf(s.ttl)
}

// leastLeft is how much is left of a lease at least that has so many whole seconds
// left. Of one that ran out less than a second ago and is not gone yet, etcd says
// zero: it cuts off the fraction.
func leastLeft(seconds int64) time.Duration {
	if seconds == 0 {
		return -time.Second
	}
	return time.Duration(seconds) * time.Second
}

// goneWithin is how long after a lease has run out its keys are gone: etcd looks
// each half a second which leases have.
const goneWithin = 2 * time.Second

// explains says whether the lease has run out by itself, if it was gone at that
// time. One that was revoked long after that was alive: what was seen was wrong.
func (s *sighting) explains(gone time.Duration) bool {
	return s.final && gone <= s.latest+goneWithin
}

func (s *sighting) quick() time.Duration { return max(s.ttl/closeShare, 50*time.Millisecond) }

// next returns when to look again, counted from the last answer: seldom while the
// holder renews its lease as it should; then in quick succession until the seconds
// left have fallen by one, which tells to the fraction when the lease runs out;
// and again in the last quarter.
func (s *sighting) next() time.Duration {
	overdue := s.seen && time.Duration(s.left+1)*time.Second <= s.ttl*6/10
	switch {
	case !overdue:
		return s.ttl / lookShare
	case s.pinned && !s.final:
		return max(s.latest-graceOf(s.ttl)-s.sent, s.quick())
	}
	return s.quick()
}
