//go:build unix

package main

import (
	"os"
	"syscall"
)

// passedOn are the signals that the command gets when highlander does.
var passedOn = []os.Signal{syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH}

// hasTerminal says whether this process has a controlling terminal, which is
// not gone.
func hasTerminal() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	tty.Close()
	return true
}
