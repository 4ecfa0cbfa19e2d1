package highlander

import (
	"time"

	"highlander/internal/boottime"
)

// countdown runs to a moment at which a child must have stopped. Go's clock, and
// with it every timer, stands still while the machine is suspended; the leases
// that others count on do not. So what is left is read from the boot clock, again
// and again: on a machine that slept past the end, a timer knows nothing of it.
// Where Go's clock is ahead, as the virtual one of testing/synctest is, that one
// counts.
type countdown struct {
	boot    func() time.Duration
	bootEnd time.Duration
	end     time.Time
}

// lookEvery is how late a machine that wakes can be to see that a countdown is
// over. Children that stop are few and stop soon, so it costs nothing to speak of.
const lookEvery = 100 * time.Millisecond

// countdown returns one of length d.
func (s *Singleton) countdown(d time.Duration) countdown {
	return countdown{boot: s.boot, bootEnd: s.boot() + d, end: time.Now().Add(d)}
}

// countdownTo returns one that ends at t.
func (s *Singleton) countdownTo(t time.Time) countdown {
	boot := s.boot() // first: what passes in between makes the end earlier
	left := boottime.Until(t)
	return countdown{boot: s.boot, bootEnd: boot + left, end: time.Now().Add(left)}
}

// left returns what is left; zero when it is over.
func (c countdown) left() time.Duration {
	return max(0, min(c.bootEnd-c.boot(), time.Until(c.end)))
}

// step returns for how long a timer may run until the next look.
func (c countdown) step() time.Duration { return min(c.left(), lookEvery) }
