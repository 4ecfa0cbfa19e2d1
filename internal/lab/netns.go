//go:build linux

package lab

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace without a name: a thread of this process
// lives in it, and so does what that thread starts.
type namespace struct {
	tap   *os.File
	calls chan func()
	ended chan struct{}
}

// nodeAddr is the address of the n-th node, the same in every lab: the
// namespaces of two of them do not know of each other.
func nodeAddr(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, 0, byte(n + 1)}) }

func addrPort(n int, port uint16) netip.AddrPort { return netip.AddrPortFrom(nodeAddr(n), port) }

// newNamespace makes the namespace of the n-th node, with a TAP device in it.
func newNamespace(n int) (*namespace, error) {
	ns := &namespace{calls: make(chan func()), ended: make(chan struct{})}
	made := make(chan error)
	go ns.live(n, made)
	if err := <-made; err != nil {
		return nil, fmt.Errorf("network namespace of node %d: %w", n, err)
	}
	return ns, nil
}

// live is the thread's life. It ends with the goroutine, since that stays
// locked to it.
func (ns *namespace) live(n int, made chan<- error) {
	defer close(ns.ended)
	runtime.LockOSThread()
	err := unix.Unshare(unix.CLONE_NEWNET)
	if err == nil {
		err = ns.plug(n)
	}
	made <- err
	if err != nil {
		return
	}
	for call := range ns.calls {
		call()
	}
}

// start starts a process in the namespace. It gets the parent-death signal,
// if it is to have one, when the namespace is closed.
func (ns *namespace) start(cmd *exec.Cmd) error {
	var err error
	ns.do(func() { err = cmd.Start() })
	return err
}

// do calls a function in the namespace: sockets and processes that it makes
// belong there.
func (ns *namespace) do(call func()) {
	done := make(chan struct{})
	ns.calls <- func() { defer close(done); call() }
	<-done
}

// close ends the thread; the namespace goes with the last process in it.
func (ns *namespace) close() {
	close(ns.calls)
	<-ns.ended
}

// plug makes the TAP device and gives it its addresses.
func (ns *namespace) plug(n int) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq("lab0")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		unix.Close(fd)
		return fmt.Errorf("make a TAP device: %w", err)
	}
	ns.tap = os.NewFile(uintptr(fd), "lab0")
	if err := configure(n); err != nil {
		ns.tap.Close()
		return err
	}
	return nil
}

// configure sets addresses and flags of the interfaces in this thread's
// namespace.
func configure(n int) error {
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(sock)
	addr := nodeAddr(n).As4()
	for _, step := range []struct {
		what, dev string
		request   uint
		set       func(*unix.Ifreq) error
	}{
		{"set the address", "lab0", unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(addr[:]) }},
		{"set the net mask", "lab0", unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr([]byte{255, 255, 255, 0}) }},
		{"bring it up", "lab0", unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP); return nil }},
		{"bring it up", "lo", unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP); return nil }},
	} {
		req, err := unix.NewIfreq(step.dev)
		if err == nil {
			err = step.set(req)
		}
		if err == nil {
			err = unix.IoctlIfreq(sock, step.request, req)
		}
		if err != nil {
			return fmt.Errorf("%s: %s: %w", step.dev, step.what, err)
		}
	}
	return nil
}
