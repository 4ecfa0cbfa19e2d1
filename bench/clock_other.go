//go:build !linux

package main

import (
	"syscall"
	"time"
)

// now returns a time that the processes of this machine share: the wall clock,
// which must not be set during a measurement.
func now() time.Duration { return time.Duration(time.Now().UnixNano()) }

// dieWithParent is for what Linux can do with a process whose parent is gone.
func dieWithParent() *syscall.SysProcAttr { return nil }
