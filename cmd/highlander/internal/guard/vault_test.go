//go:build linux

package guard

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// peer is the other end of a connection that a highlander has in its vault.
type peer struct{ conn *net.UnixConn }

// hold has a highlander connect, and lay the connection into its vault.
func (h *highlander) hold(t *testing.T) (p *peer, let func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "peer") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	h.tell(t, "hold %s", path)
	ln.SetDeadline(time.Now().Add(safetyNet))
	conn, err := ln.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if got := h.report(t); got != "held <nil>" {
		t.Fatalf("highlander reported %q", got)
	}
	return &peer{conn}, func() {
		t.Helper()
		h.tell(t, "let %s", path)
		if got := h.report(t); got != "let go" {
			t.Fatalf("highlander reported %q", got)
		}
	}
}

// mustBeOpen looks at the connection as it is now.
func (p *peer) mustBeOpen(t *testing.T) {
	t.Helper()
	raw, err := p.conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Read(func(fd uintptr) bool {
		_, err = syscall.Read(int(fd), make([]byte, 1))
		return true
	})
	if !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("the connection is not open: %v", err)
	}
}

func (p *peer) waitEnd(t *testing.T) {
	t.Helper()
	p.conn.SetReadDeadline(time.Now().Add(safetyNet))
	if _, err := p.conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("the connection does not end: %v", err)
	}
}

// Who sees the connection end may start the next command: nothing of this one is
// left.
func TestConnectionsInTheVaultOutliveTheCommand(t *testing.T) {
	for name, victims := range map[string]func(h *highlander) []int{
		"highlander":            func(h *highlander) []int { return []int{h.cmd.Process.Pid} },
		"highlander and guard":  func(h *highlander) []int { return []int{h.cmd.Process.Pid, h.guard} },
		"highlander and keeper": func(h *highlander) []int { return []int{h.cmd.Process.Pid, h.keeper} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hall := newHall(t)
			h := launch(t, hall.command(t, "ignore-term", "fork", "fork-setsid", "join", "hold"), nil)
			h.ready(t)
			first, _ := h.hold(t)
			h.tell(t, "run")
			members := hall.wait(t, 4)
			second, _ := h.hold(t)
			freeze(t, h.guard, h.keeper) // the command lives on for now
			strike(t, victims(h)...)
			h.cmd.Wait()
			if name != "highlander and guard" { // then the kernel wakes the keeper
				first.mustBeOpen(t)
				second.mustBeOpen(t)
			}
			thaw(h.guard, h.keeper)
			first.waitEnd(t)
			second.waitEnd(t)
			mustBeGone(t, members)
		})
	}
}

func TestConnectionsLeaveTheVaultWhenTheyAreLet(t *testing.T) {
	t.Parallel()
	hall := newHall(t)
	h := launch(t, hall.command(t, aTree...), nil)
	h.ready(t)
	before := fdCount(t, h.cmd.Process.Pid)
	first, letFirst := h.hold(t)
	for range 300 { // more than the queue takes at once
		next, let := h.hold(t)
		let()
		next.waitEnd(t)
	}
	first.mustBeOpen(t)
	letFirst()
	first.waitEnd(t)
	if after := fdCount(t, h.cmd.Process.Pid); after > before+1 { // the poller of the runtime
		t.Errorf("highlander has %d descriptors, and had %d", after, before)
	}
}
