//go:build unix

package main

import (
	"syscall"
	"time"
)

// canFreeze says whether processes can be stopped here.
const canFreeze = true

// freeze stops a node with SIGSTOP and returns when that was sent.
func (f *fleet) freeze(n *nodeProcess) (at time.Duration, err error) {
	at = monotonicNow()
	return at, n.cmd.Process.Signal(syscall.SIGSTOP)
}

// thaw wakes a stopped node.
func (f *fleet) thaw(n *nodeProcess) error {
	return n.cmd.Process.Signal(syscall.SIGCONT)
}

// killAtOnce sends SIGKILL to all processes; stopped first, none of them can
// answer the death of another.
func killAtOnce(pids []int) error {
	if len(pids) > 1 {
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				return err
			}
		}
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return err
		}
	}
	return nil
}
