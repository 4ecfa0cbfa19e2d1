package postgres

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
)

// unixPeerIsParentOf reports whether who listens at the other end of a unix
// socket is the parent of a process: the postmaster, and not a proxy.
func unixPeerIsParentOf(conn net.Conn, pid int) bool {
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn()
	}
	if w, ok := conn.(*wire); ok {
		conn = w.Conn
	}
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	var peer *syscall.Ucred
	var peerErr error
	if err := raw.Control(func(fd uintptr) {
		peer, peerErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil || peerErr != nil {
		return false
	}
	return peer.Pid > 0 && parentOf(pid) == int(peer.Pid)
}

// parentOf returns the parent of a process, or zero if it cannot be seen from here.
func parentOf(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// pid (name) state ppid: the name may have anything in it.
	_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	var state string
	var parent int
	if _, err := fmt.Sscan(rest, &state, &parent); err != nil {
		return 0
	}
	return parent
}
