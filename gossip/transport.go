package gossip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// tripwireByte is the first byte of a tripwire's stream. memberlist's
	// streams start with a message type (below 16) or with 244.
	tripwireByte = 't'

	freePortTries = 10 // a port that is free for TCP may be taken for UDP

	firstByteTimeout = 2 * time.Second
	sendTimeout      = 5 * time.Second // for a message on a stream

	// What strangers may take up. memberlist's streams last for seconds, those
	// of the tripwire for as long as a node does.
	maxInboundStreams   = 512
	maxInboundTripwires = 1024
	maxStream           = 4 << 20 // bytes read from one stream
)

// bind opens the network as cfg says.
func bind(cfg Config, logger *log.Logger) (*memberlist.NetTransport, error) {
	if cfg.Bind != "" {
		return bindTo(cfg.Bind, logger)
	}
	for port := DefaultPort; port <= lastLoopbackPort; port++ {
		t, err := bindTo(net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), logger)
		if err == nil || !strings.Contains(err.Error(), "address already in use") {
			return t, err
		}
	}
	return nil, fmt.Errorf("gossip: the ports 127.0.0.1:%d to %d are all in use", DefaultPort, lastLoopbackPort)
}

func bindTo(addr string, logger *log.Logger) (*memberlist.NetTransport, error) {
	ip, port, err := splitIPPort(addr)
	if err != nil {
		return nil, err
	}
	var t *memberlist.NetTransport
	for range freePortTries {
		t, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{ip.String()}, BindPort: port, Logger: logger})
		if err == nil || port != 0 {
			break
		}
	}
	if err != nil {
		reason := err.Error() // memberlist does not wrap it; the system's words come last
		if _, after, ok := strings.Cut(reason, "bind: "); ok {
			reason = after
		}
		return nil, fmt.Errorf("gossip: cannot listen on Config.Bind %s: %s", addr, reason)
	}
	return t, nil
}

// muxTransport lets the tripwire share the port with memberlist: it looks at
// the first byte of each stream that comes in. It bounds what streams take up,
// and ends all of them in Shutdown.
type muxTransport struct {
	memberlist.NodeAwareTransport
	tripwire func(net.Conn) // serves a stream that starts with tripwireByte; closes it
	streams  chan net.Conn  // to memberlist
	refused  func(reason string)

	dialing    context.Context // ends with hangUp
	endDialing context.CancelFunc
	stopping   chan struct{} // closed by Shutdown
	stopped    chan struct{} // closed when nothing comes in any more
	serving    sync.WaitGroup

	mu    sync.Mutex
	open  map[*trackedConn]struct{}
	count [tripwireStream + 1]int // of open, by kind
}

func newMuxTransport(inner memberlist.NodeAwareTransport, tripwire func(net.Conn), refused func(string)) *muxTransport {
	t := &muxTransport{
		NodeAwareTransport: inner, tripwire: tripwire, refused: refused,
		streams: make(chan net.Conn), stopping: make(chan struct{}), stopped: make(chan struct{}),
		open: map[*trackedConn]struct{}{},
	}
	t.dialing, t.endDialing = context.WithCancel(context.Background())
	t.serving.Go(t.accept)
	return t
}

// StreamCh returns the streams that are memberlist's.
func (t *muxTransport) StreamCh() <-chan net.Conn { return t.streams }

// WriteToAddress implements memberlist.NodeAwareTransport. It does not look up
// host names, which the address in a malformed packet may be taken for.
func (t *muxTransport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if _, err := netip.ParseAddrPort(a.Addr); err != nil {
		return time.Time{}, err
	}
	return t.NodeAwareTransport.WriteToAddress(b, a)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport. What is written
// to the stream has to be taken in time.
func (t *muxTransport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(a.Addr); err != nil {
		return nil, err
	}
	conn, err := t.dial(a, timeout)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(sendTimeout))
	c := &trackedConn{Conn: conn, t: t, left: math.MaxInt}
	if err := t.track(c, dialedStream); err != nil {
		return nil, err
	}
	return c, nil
}

// dial can be broken off if the transport is memberlist's own.
func (t *muxTransport) dial(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if err := t.dialing.Err(); err != nil {
		return nil, err
	}
	if _, own := t.NodeAwareTransport.(*memberlist.NetTransport); own {
		dialer := net.Dialer{Timeout: timeout}
		return dialer.DialContext(t.dialing, "tcp", a.Addr)
	}
	return t.NodeAwareTransport.DialAddressTimeout(a, timeout)
}

// hangUp ends all dialing and the streams that were dialed.
func (t *muxTransport) hangUp() {
	t.endDialing()
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.open {
		if c.kind == dialedStream {
			c.Conn.Close()
		}
	}
}

// Shutdown closes the transport and all streams, and waits. Only the first call
// does something.
func (t *muxTransport) Shutdown() error {
	t.mu.Lock()
	if t.isStopping() {
		t.mu.Unlock()
		return nil
	}
	close(t.stopping)
	t.mu.Unlock()
	t.hangUp()
	err := t.NodeAwareTransport.Shutdown()
	close(t.stopped)
	t.mu.Lock()
	for c := range t.open {
		c.Conn.Close()
	}
	t.mu.Unlock()
	t.serving.Wait()
	return err
}

func (t *muxTransport) isStopping() bool {
	select {
	case <-t.stopping:
		return true
	default:
		return false
	}
}

// accept goes on until the inner transport has shut down, which waits for its
// streams to be taken.
func (t *muxTransport) accept() {
	for {
		select {
		case conn := <-t.NodeAwareTransport.StreamCh():
			c := &trackedConn{Conn: conn, t: t, left: maxStream}
			if t.track(c, inboundStream) == nil {
				t.serving.Go(func() { t.dispatch(c) })
			}
		case <-t.stopped:
			return
		}
	}
}

// dispatch finds out whose stream c is.
func (t *muxTransport) dispatch(c *trackedConn) {
	var first [1]byte
	c.SetReadDeadline(time.Now().Add(firstByteTimeout))
	if _, err := io.ReadFull(c, first[:]); err != nil {
		c.Close()
		return
	}
	c.SetReadDeadline(time.Time{})
	if first[0] == tripwireByte {
		if t.track(c, tripwireStream) == nil {
			t.tripwire(c)
		}
		return
	}
	c.first = first[:]
	select {
	case t.streams <- c:
	case <-t.stopping:
		c.Close()
	}
}

type streamKind int

const (
	dialedStream streamKind = iota + 1
	inboundStream
	tripwireStream
)

var (
	errStopping       = errors.New("the transport was shut down")
	errTooManyStreams = errors.New("too many streams")
	errStreamTooLong  = fmt.Errorf("a stream of more than %d bytes", maxStream)
)

// track makes c known, as a stream of a kind, until it is closed. If there can
// be no more of them it closes c and returns why.
func (t *muxTransport) track(c *trackedConn, kind streamKind) error {
	t.mu.Lock()
	if c.kind != 0 {
		t.count[c.kind]--
	}
	c.kind = kind
	t.count[kind]++
	t.open[c] = struct{}{}
	count, stopping := t.count[kind], t.isStopping()
	t.mu.Unlock()
	switch {
	case stopping, kind == dialedStream && t.dialing.Err() != nil:
		c.Close()
		return errStopping
	case kind == inboundStream && count > maxInboundStreams, kind == tripwireStream && count > maxInboundTripwires:
		c.Close()
		t.refused(errTooManyStreams.Error())
		return errTooManyStreams
	}
	return nil
}

// trackedConn reads a limited number of bytes, the first of which it may give
// back, and is known to its transport until it is closed.
type trackedConn struct {
	net.Conn
	t     *muxTransport
	kind  streamKind // guarded by t.mu
	first []byte     // read already
	left  int        // bytes
}

func (c *trackedConn) Read(b []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	if c.left <= 0 {
		return 0, errStreamTooLong
	}
	n, err := c.Conn.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}

func (c *trackedConn) Close() error {
	c.t.mu.Lock()
	if _, open := c.t.open[c]; open {
		delete(c.t.open, c)
		c.t.count[c.kind]--
	}
	c.t.mu.Unlock()
	return c.Conn.Close()
}
