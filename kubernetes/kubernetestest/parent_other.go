//go:build unix && !linux

package kubernetestest

import "syscall"

// endWithParent can do nothing here: there is no such signal.
func endWithParent(*syscall.SysProcAttr) {}
