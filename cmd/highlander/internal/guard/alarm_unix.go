//go:build unix && !linux

package guard

import (
	"time"

	"golang.org/x/sys/unix"
)

// bootClock is the same in all processes; on darwin it runs on in sleep.
const bootClock = unix.CLOCK_MONOTONIC

// alarm sends on C when the boot clock reaches a set instant. Timers may stand
// still while the machine sleeps, so it looks at the clock each second.
type alarm struct {
	C   <-chan struct{}
	set chan instant
}

func newAlarm() (*alarm, error) {
	c := make(chan struct{}, 1)
	a := &alarm{C: c, set: make(chan instant)}
	go a.wait(c)
	return a, nil
}

func (a *alarm) wait(c chan<- struct{}) {
	var at instant
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	for {
		select {
		case next, ok := <-a.set:
			if !ok {
				return
			}
			at = next
		case <-timer.C:
		}
		if at.passed() {
			at = 0
			select {
			case c <- struct{}{}:
			default:
			}
		}
		if at == 0 {
			timer.Stop()
			continue
		}
		timer.Reset(min(time.Duration(at-now()), time.Second))
	}
}

// Set replaces the instant; zero means never. A receiver from C has to look at
// the clock: what it received may belong to an earlier Set.
func (a *alarm) Set(at instant) { a.set <- at }

// Close frees the timer. There must be no Set at the same time or later.
func (a *alarm) Close() { close(a.set) }
