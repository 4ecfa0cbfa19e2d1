//go:build !linux

package main

import "time"

// monotonicNow returns a time that the processes of this machine share: the
// wall clock, which must not be set during a measurement.
func monotonicNow() time.Duration { return time.Duration(time.Now().UnixNano()) }
