//go:build unix

package freeze

import (
	"errors"
	"fmt"
	"syscall"
	"time"
)

// lookEvery is how often Stop looks whether a process has stopped.
const lookEvery = time.Millisecond

// Stop stops processes and returns when they have stopped, which they do a moment
// after the signal, and not soon on a loaded machine. One that has ended is none.
func Stop(pids ...int) error {
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop process %d: %w", pid, err)
		}
	}
	for _, pid := range pids {
		for {
			now, err := state(pid)
			if err != nil {
				return fmt.Errorf("ask for the state of process %d: %w", pid, err)
			}
			if now == stopped || now == zombie || now == gone {
				break
			}
			time.Sleep(lookEvery)
		}
	}
	return nil
}

// The letters that Unix has for states of a process.
const (
	gone    = 0
	stopped = 'T'
	zombie  = 'Z'
)
