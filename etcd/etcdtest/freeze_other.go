//go:build !unix

package etcdtest

import (
	"errors"
	"os/exec"
)

func separate(*exec.Cmd) {}

func (m *member) freeze() error { return errors.ErrUnsupported }
func (m *member) thaw() error   { return errors.ErrUnsupported }
