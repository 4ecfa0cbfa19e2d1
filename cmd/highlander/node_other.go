//go:build !linux

package main

import "syscall"

// nodeAttr is for what Linux can do with a node whose parent is gone.
func nodeAttr() *syscall.SysProcAttr { return nil }
