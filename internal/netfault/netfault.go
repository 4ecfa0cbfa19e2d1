// Package netfault is a transport that injects faults, for the demo and for
// tests: it can cut a node off from others without any privilege.
package netfault

import (
	"context"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

// Transport passes everything on to another transport, but for what its faults
// say. All faults work in the direction of sending: cut both ends for a
// netsplit. All methods may be called concurrently.
type Transport struct {
	memberlist.NodeAwareTransport

	mu      sync.Mutex
	cut     map[string]bool
	refused map[string]bool
	turned  map[string]string
	noise   Noise
	streams map[*stream]struct{} // dialed and open
	changed chan struct{}        // closed when the cut changes

	shutdown sync.Once
	closed   chan struct{}
}

// Noise is what happens to packets at random. Streams are not affected: the
// kernel repairs them.
type Noise struct {
	Lost     float64       // share of packets that vanish
	Doubled  float64       // share of packets that arrive twice, the second time late
	MaxDelay time.Duration // each packet is late by up to that much, so that they overtake each other
}

// New returns a transport without faults.
func New(inner memberlist.NodeAwareTransport) *Transport {
	return &Transport{NodeAwareTransport: inner, turned: map[string]string{}, streams: map[*stream]struct{}{}, changed: make(chan struct{}), closed: make(chan struct{})}
}

// Cut drops what goes to addrs, host:port, from now on, as a network does that
// loses everything: packets vanish, dialing times out, and what is written to
// an open stream goes nowhere. It replaces an earlier cut; without addrs there
// is none.
func (t *Transport) Cut(addrs ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cut = set(addrs)
	close(t.changed)
	t.changed = make(chan struct{})
}

// Refuse answers the dialing of addrs as a firewall does that rejects
// connections, from now on: packets and open streams pass. It replaces an
// earlier Refuse; without addrs there is none.
func (t *Transport) Refuse(addrs ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused = set(addrs)
}

// Redirect makes the dialing of addr end up at another address from now on, as
// where an address has changed hands: packets and open streams pass.
func (t *Transport) Redirect(addr, to string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turned[addr] = to
}

// Break closes the open streams to addr, as a box in between does that forgets
// its connections.
func (t *Transport) Break(addr string) {
	t.mu.Lock()
	var open []*stream
	for s := range t.streams {
		if s.addr == addr {
			open = append(open, s)
		}
	}
	t.mu.Unlock()
	for _, s := range open {
		s.Conn.Close()
	}
}

// SetNoise disturbs the packets that are sent from now on.
func (t *Transport) SetNoise(n Noise) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.noise = n
}

func set(addrs []string) map[string]bool {
	m := map[string]bool{}
	for _, addr := range addrs {
		m[addr] = true
	}
	return m
}

// isCut returns whether addr is cut off, and a channel that is closed when that
// may have changed.
func (t *Transport) isCut(addr string) (bool, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cut[addr], t.changed
}

// WriteTo implements memberlist.Transport.
func (t *Transport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (t *Transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	t.mu.Lock()
	noise := t.noise
	t.mu.Unlock()
	if rand.Float64() < noise.Lost {
		return time.Now(), nil
	}
	if rand.Float64() < noise.Doubled {
		t.writeLate(b, a, noise.MaxDelay)
	}
	if noise.MaxDelay > 0 {
		t.writeLate(b, a, noise.MaxDelay)
		return time.Now(), nil
	}
	return t.writeNow(b, a)
}

func (t *Transport) writeLate(b []byte, a memberlist.Address, most time.Duration) {
	b = append([]byte(nil), b...)
	time.AfterFunc(rand.N(most+1), func() { t.writeNow(b, a) })
}

func (t *Transport) writeNow(b []byte, a memberlist.Address) (time.Time, error) {
	if cut, _ := t.isCut(a.Addr); cut {
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
	for cut, changed := t.isCut(a.Addr); cut; cut, changed = t.isCut(a.Addr) {
		select {
		case <-changed:
		case <-t.closed:
			return nil, dialError(net.ErrClosed)
		case <-ctx.Done():
			return nil, dialError(os.ErrDeadlineExceeded)
		}
	}
	if t.isRefused(a.Addr) {
		return nil, dialError(os.NewSyscallError("connect", syscall.ECONNREFUSED))
	}
	left := timeout
	if deadline, ok := ctx.Deadline(); ok {
		left = time.Until(deadline)
	}
	conn, err := t.NodeAwareTransport.DialAddressTimeout(t.destination(a), max(left, time.Millisecond))
	if err != nil {
		return nil, err
	}
	s := &stream{Conn: conn, t: t, addr: a.Addr}
	t.mu.Lock()
	t.streams[s] = struct{}{}
	t.mu.Unlock()
	return s, nil
}

func (t *Transport) destination(a memberlist.Address) memberlist.Address {
	t.mu.Lock()
	defer t.mu.Unlock()
	if to, turned := t.turned[a.Addr]; turned {
		a.Addr = to
	}
	return a
}

func (t *Transport) isRefused(addr string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refused[addr]
}

func dialError(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }

// Shutdown implements memberlist.Transport: whoever dials over a cut gives up.
func (t *Transport) Shutdown() error {
	t.shutdown.Do(func() { close(t.closed) })
	return t.NodeAwareTransport.Shutdown()
}

// stream is a stream that was dialed.
type stream struct {
	net.Conn
	t    *Transport
	addr string
}

func (s *stream) Write(b []byte) (int, error) {
	if cut, _ := s.t.isCut(s.addr); cut {
		return len(b), nil
	}
	return s.Conn.Write(b)
}

func (s *stream) Close() error {
	s.t.mu.Lock()
	delete(s.t.streams, s)
	s.t.mu.Unlock()
	return s.Conn.Close()
}
