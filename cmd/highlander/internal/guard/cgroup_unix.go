//go:build unix && !linux

package guard

import (
	"log/slog"
	"os"
)

// cgroup is a thing of Linux.
type cgroup struct{}

func newCgroup(*slog.Logger) *cgroup { return nil }

func inheritCgroup(uintptr) *cgroup { return nil }

func (c *cgroup) file() *os.File { return nil }
func (c *cgroup) kill() error    { return nil }
func (c *cgroup) clear()         {}
func (c *cgroup) remove()        {}
