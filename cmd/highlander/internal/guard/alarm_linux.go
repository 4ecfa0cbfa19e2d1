package guard

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// bootClock runs on while the machine is suspended, and is the same in all
// processes.
const bootClock = unix.CLOCK_BOOTTIME

// alarm sends on C when the boot clock reaches a set instant: at once when
// that passed in suspend, where an ordinary timer would have stood still.
type alarm struct {
	C  <-chan struct{}
	fd int
	f  *os.File
}

func newAlarm() (*alarm, error) {
	fd, err := unix.TimerfdCreate(bootClock, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("create a timer: %w", err)
	}
	c := make(chan struct{}, 1)
	a := &alarm{C: c, fd: fd, f: os.NewFile(uintptr(fd), "timerfd")}
	go a.wait(c)
	return a, nil
}

func (a *alarm) wait(c chan<- struct{}) {
	var expirations [8]byte
	for {
		if _, err := a.f.Read(expirations[:]); err != nil {
			return
		}
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Set replaces the instant; zero means never. A receiver from C has to look at
// the clock: what it received may belong to an earlier Set.
func (a *alarm) Set(at instant) {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(at))}
	// With these arguments it cannot fail.
	_ = unix.TimerfdSettime(a.fd, unix.TFD_TIMER_ABSTIME, &spec, nil)
}

// Close frees the timer. There must be no Set at the same time or later.
func (a *alarm) Close() { a.f.Close() }
