package main

import "syscall"

// nodeAttr has a node killed when its parent is gone, for the case that it is
// frozen and cannot see the end of its input.
func nodeAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
