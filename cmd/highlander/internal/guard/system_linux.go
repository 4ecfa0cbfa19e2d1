package guard

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

const ioctlReadTermios = unix.TCGETS

// selfPath names this very binary, also when a newer one has taken its place
// on disk: helpers must speak the same messages.
func selfPath() string { return "/proc/self/exe" }

// becomeSubreaper makes descendants that lose their parent fall to this
// process instead of to init.
func becomeSubreaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become a subreaper: %w", err)
	}
	return nil
}

// orphansFallToUs says whether a guard that has no children left knows that
// nothing of the command is left.
const orphansFallToUs = true

// setProcessName is for ps; the main thread has to call it.
func setProcessName(name string) {
	bytes, err := unix.BytePtrFromString(name)
	if err == nil {
		_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(bytes)), 0, 0, 0)
	}
}
