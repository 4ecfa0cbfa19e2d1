// Package netfault is a transport that injects faults, for the demo and for
// tests: it can cut a node off from others without any privilege.
package netfault

import (
	"context"
	"net"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Transport passes everything on to another transport, but for what would go
// to an address that is cut off: packets vanish, dialing times out, and what is
// written to an open stream goes nowhere, as in a network that drops all
// packets. A cut works in the direction of sending: cut both ends for a
// netsplit. All methods may be called concurrently.
type Transport struct {
	memberlist.NodeAwareTransport

	mu     sync.Mutex
	cut    map[string]bool
	healed chan struct{} // closed when the cut changes
}

// New returns a transport without faults.
func New(inner memberlist.NodeAwareTransport) *Transport {
	return &Transport{NodeAwareTransport: inner, healed: make(chan struct{})}
}

// Cut drops what goes to addrs, host:port, from now on. It replaces an earlier
// cut; without addrs there is none.
func (t *Transport) Cut(addrs ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cut = map[string]bool{}
	for _, addr := range addrs {
		t.cut[addr] = true
	}
	close(t.healed)
	t.healed = make(chan struct{})
}

// state returns whether addr is cut off, and a channel that is closed when
// that may have changed.
func (t *Transport) state(addr string) (bool, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cut[addr], t.healed
}

// WriteTo implements memberlist.Transport.
func (t *Transport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (t *Transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if cut, _ := t.state(a.Addr); cut {
		return time.Now(), nil
	}
	return t.NodeAwareTransport.WriteToAddress(b, a)
}

// DialTimeout implements memberlist.Transport.
func (t *Transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport. Dialing over a
// cut goes on when it heals, as the kernel's retransmissions would.
func (t *Transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	for cut, healed := t.state(a.Addr); cut; cut, healed = t.state(a.Addr) {
		select {
		case <-healed:
		case <-ctx.Done():
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}
		}
	}
	left := timeout
	if deadline, ok := ctx.Deadline(); ok {
		left = time.Until(deadline)
	}
	conn, err := t.NodeAwareTransport.DialAddressTimeout(a, max(left, time.Millisecond))
	if err != nil {
		return nil, err
	}
	return &stream{Conn: conn, t: t, addr: a.Addr}, nil
}

// stream is a stream that was dialed.
type stream struct {
	net.Conn
	t    *Transport
	addr string
}

func (s *stream) Write(b []byte) (int, error) {
	if cut, _ := s.t.state(s.addr); cut {
		return len(b), nil
	}
	return s.Conn.Write(b)
}
