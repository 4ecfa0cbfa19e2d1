//go:build !linux

package main

import (
	"runtime"
	"time"
)

// usage returns the memory that this process has from the system; its CPU time
// is not known here.
func usage() (cpu time.Duration, rss int64) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return 0, int64(m.Sys - m.HeapReleased)
}
