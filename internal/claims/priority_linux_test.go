package claims

import (
	"os"
	"strconv"
	"syscall"
)

// Time is virtual here, and is real to tests of other packages that run at the same
// time: let them go first. It goes for each thread by itself, and for what a thread
// starts later, be it another one or a process.
func init() {
	const politely = 10
	threads, _ := os.ReadDir("/proc/self/task") // without: no harm done
	for _, thread := range threads {
		if id, err := strconv.Atoi(thread.Name()); err == nil {
			_ = syscall.Setpriority(syscall.PRIO_PROCESS, id, politely)
		}
	}
}
