package main

import (
	"syscall"
	"time"

	"highlander/internal/boottime"
)

// now returns a time that the processes of this machine share and that nobody sets.
func now() time.Duration { return boottime.Now() }

// dieWithParent has a process killed when its parent is gone.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
