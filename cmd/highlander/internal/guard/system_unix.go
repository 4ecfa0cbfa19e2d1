//go:build unix && !linux

package guard

import (
	"os"

	"golang.org/x/sys/unix"
)

const ioctlReadTermios = unix.TIOCGETA

func selfPath() string {
	path, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return path
}

func becomeSubreaper() error { return nil }

// orphansFallToUs: without it, a guard knows of the process group only, and of
// that only if the keeper lived to tell its number.
const orphansFallToUs = false

func setProcessName(string) {}
