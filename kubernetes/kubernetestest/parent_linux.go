package kubernetestest

import "syscall"

// endWithParent makes a process end when the one that starts it does.
func endWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
