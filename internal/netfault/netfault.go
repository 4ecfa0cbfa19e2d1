// Package netfault is a transport that injects faults, for the demo and for
// tests: it can cut a node off from others without any privilege.
package netfault

import (
	"bytes"
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
// say. They work in the direction of sending, but for Deafen: cut both ends for
// a netsplit; cut one and deafen the other for a link that is dead in one
// direction. All methods may be called concurrently.
type Transport struct {
	memberlist.NodeAwareTransport

	mu      sync.Mutex
	cut     map[string]bool
	deaf    map[string]bool
	refused map[string]bool
	refusal int // how many dials were refused
	turned  map[string]string
	noise   Noise
	records bool
	record  []sent
	streams map[*stream]struct{} // dialed and open
	changed chan struct{}        // closed when cut, deaf or refusal changes

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

// sent is a packet or a whole stream that was sent.
type sent struct {
	addr   string
	stream bool
	data   []byte
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

// Deafen drops what addrs send back on streams that are dialed from here, from
// now on, so that none can be opened. It replaces an earlier Deafen; without
// addrs there is none.
func (t *Transport) Deafen(addrs ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.deaf = set(addrs)
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

// Record keeps a copy of everything that is sent from now on, for Replay.
func (t *Transport) Record() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.records = true
}

// Replay sends everything that was recorded once more, as somebody does who has
// listened. Streams count as recorded when they were closed.
func (t *Transport) Replay() { t.ReplayMangled(func(b []byte) []byte { return b }) }

// ReplayMangled is Replay of what mangle makes of each packet and stream.
func (t *Transport) ReplayMangled(mangle func(copied []byte) []byte) {
	t.mu.Lock()
	t.records = false
	record := t.record
	t.mu.Unlock()
	for _, s := range record {
		data := mangle(bytes.Clone(s.data))
		if !s.stream {
			t.NodeAwareTransport.WriteToAddress(data, memberlist.Address{Addr: s.addr})
			continue
		}
		conn, err := t.NodeAwareTransport.DialAddressTimeout(memberlist.Address{Addr: s.addr}, time.Second)
		if err != nil {
			continue // it was to a node that is no more
		}
		conn.Write(data)
		conn.Close()
	}
}

func set(addrs []string) map[string]bool {
	m := map[string]bool{}
	for _, addr := range addrs {
		m[addr] = true
	}
	return m
}

// isCut returns whether what is sent to addr is dropped.
func (t *Transport) isCut(addr string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cut[addr]
}

func (t *Transport) isDeaf(addr string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.deaf[addr]
}

// isSilent returns whether addr does not answer those who dial it, and a channel
// that is closed when that may have changed.
func (t *Transport) isSilent(addr string) (bool, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cut[addr] || t.deaf[addr], t.changed
}

// WriteTo implements memberlist.Transport.
func (t *Transport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (t *Transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	t.mu.Lock()
	if t.records {
		t.record = append(t.record, sent{a.Addr, false, bytes.Clone(b)})
	}
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
	b = bytes.Clone(b)
	time.AfterFunc(rand.N(most+1), func() { t.writeNow(b, a) })
}

func (t *Transport) writeNow(b []byte, a memberlist.Address) (time.Time, error) {
	if t.isCut(a.Addr) {
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
	for silent, changed := t.isSilent(a.Addr); silent; silent, changed = t.isSilent(a.Addr) {
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
	if t.refused[addr] {
		t.refusal++
		close(t.changed)
		t.changed = make(chan struct{})
	}
	return t.refused[addr]
}

// AwaitRefusals waits until n more dials were refused, or ctx ends; then it
// returns false.
func (t *Transport) AwaitRefusals(ctx context.Context, n int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for until := t.refusal + n; t.refusal < until; {
		changed := t.changed
		t.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		t.mu.Lock()
		if ctx.Err() != nil {
			return false
		}
	}
	return true
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
	sent []byte // recorded
}

func (s *stream) Write(b []byte) (int, error) {
	if s.t.isCut(s.addr) {
		return len(b), nil
	}
	s.t.mu.Lock()
	if s.t.records {
		s.sent = append(s.sent, b...)
	}
	s.t.mu.Unlock()
	return s.Conn.Write(b)
}

// Read implements net.Conn. What is dropped is not sent again when the link
// mends: such a stream ends.
func (s *stream) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	if s.t.isDeaf(s.addr) {
		for n = 0; err == nil; {
			_, err = s.Conn.Read(b)
		}
	}
	return n, err
}

func (s *stream) Close() error {
	s.t.mu.Lock()
	if _, open := s.t.streams[s]; open && s.t.records {
		s.t.record = append(s.t.record, sent{s.addr, true, s.sent})
	}
	delete(s.t.streams, s)
	s.t.mu.Unlock()
	return s.Conn.Close()
}
