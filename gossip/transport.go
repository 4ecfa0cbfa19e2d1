package gossip

import (
	"fmt"
	"io"
	"log"
	"net"
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

	firstByteTimeout  = 2 * time.Second
	maxInboundStreams = 2048
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
	t, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{ip.String()}, BindPort: port, Logger: logger})
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
// the first byte of each stream that comes in.
type muxTransport struct {
	memberlist.NodeAwareTransport
	tripwire func(net.Conn) // serves a stream that starts with tripwireByte; closes it
	streams  chan net.Conn  // to memberlist
	refused  func(reason string)

	stopping chan struct{} // closed by Shutdown
	stopped  chan struct{} // closed when nothing comes in any more
	serving  sync.WaitGroup
	mu       sync.Mutex
	open     map[net.Conn]struct{}
	closed   bool
}

func newMuxTransport(inner memberlist.NodeAwareTransport, tripwire func(net.Conn), refused func(string)) *muxTransport {
	t := &muxTransport{
		NodeAwareTransport: inner, tripwire: tripwire, refused: refused,
		streams: make(chan net.Conn), stopping: make(chan struct{}), stopped: make(chan struct{}),
		open: map[net.Conn]struct{}{},
	}
	t.serving.Go(t.accept)
	return t
}

// StreamCh returns the streams that are memberlist's.
func (t *muxTransport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown closes the transport and all streams that came in, and waits.
func (t *muxTransport) Shutdown() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	close(t.stopping)
	t.mu.Unlock()
	err := t.NodeAwareTransport.Shutdown()
	close(t.stopped)
	t.mu.Lock()
	for conn := range t.open {
		conn.Close()
	}
	t.mu.Unlock()
	t.serving.Wait()
	return err
}

// accept goes on until the inner transport has shut down, which waits for its
// streams to be taken.
func (t *muxTransport) accept() {
	for {
		select {
		case conn := <-t.NodeAwareTransport.StreamCh():
			t.serve(conn)
		case <-t.stopped:
			return
		}
	}
}

func (t *muxTransport) serve(conn net.Conn) {
	tracked := &trackedConn{Conn: conn, t: t}
	t.mu.Lock()
	full := len(t.open) >= maxInboundStreams
	if full || t.closed {
		t.mu.Unlock()
		conn.Close()
		if full {
			t.refused("too many streams")
		}
		return
	}
	t.open[conn] = struct{}{}
	t.mu.Unlock()
	t.serving.Go(func() { t.dispatch(tracked) })
}

func (t *muxTransport) dispatch(conn *trackedConn) {
	var first [1]byte
	conn.SetReadDeadline(time.Now().Add(firstByteTimeout))
	if _, err := io.ReadFull(conn.Conn, first[:]); err != nil {
		conn.Close()
		return
	}
	conn.SetReadDeadline(time.Time{})
	if first[0] == tripwireByte {
		t.tripwire(conn)
		return
	}
	conn.first = first[:]
	select {
	case t.streams <- conn:
	case <-t.stopping:
		conn.Close()
	}
}

// trackedConn gives back its first bytes and is known until it is closed.
type trackedConn struct {
	net.Conn
	t     *muxTransport
	first []byte
}

func (c *trackedConn) Read(b []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

func (c *trackedConn) Close() error {
	c.t.mu.Lock()
	delete(c.t.open, c.Conn)
	c.t.mu.Unlock()
	return c.Conn.Close()
}
