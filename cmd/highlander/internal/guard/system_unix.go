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

func setProcessName(string) {}
