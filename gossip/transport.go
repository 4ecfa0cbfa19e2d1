package gossip

import (
	"container/list"
	"context"
	"fmt"
	"io"
	"log"
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

	headerTimeout = 5 * time.Second // for the first byte of a stream, and again for its header
	sendTimeout   = 5 * time.Second // for a message on a stream
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

// muxTransport lets the tripwire and death certificates share the port with
// memberlist: it looks at the first byte of each stream that comes in. It bounds what streams take up,
// and ends all of them in Shutdown.
type muxTransport struct {
	memberlist.NodeAwareTransport
	header  headerRules
	refused func(reason string)
	streams chan net.Conn           // to memberlist
	packets chan *memberlist.Packet // the same

	// tripwire serves a stream that starts with tripwireByte, and closes it. It
	// calls admit before it keeps the stream.
	tripwire func(c net.Conn, admit func() error)

	certificate func(c net.Conn) // serves a stream that starts with certificateByte, and closes it

	dialing    context.Context // ends with hangUp
	endDialing context.CancelFunc
	stopping   chan struct{} // closed by Shutdown
	stopped    chan struct{} // closed when nothing comes in any more
	serving    sync.WaitGroup

	mu    sync.Mutex
	open  [tripwireStream + 1]list.List // of *trackedConn, by kind, the oldest first
	bytes int                           // that the streams which came in have charged

	lingering int           // bytes that may be held by streams which were pushed out
	changed   chan struct{} // closed when that changes
}

func newMuxTransport(inner memberlist.NodeAwareTransport, header headerRules, tripwire func(net.Conn, func() error), certificate func(net.Conn), refused func(string)) *muxTransport {
	t := &muxTransport{
		NodeAwareTransport: inner, header: header, tripwire: tripwire, certificate: certificate, refused: refused,
		streams: make(chan net.Conn), packets: make(chan *memberlist.Packet), stopping: make(chan struct{}), stopped: make(chan struct{}),
		changed: make(chan struct{}),
	}
	t.dialing, t.endDialing = context.WithCancel(context.Background())
	t.serving.Go(t.accept)
	t.serving.Go(t.sift)
	return t
}

// StreamCh returns the streams that are memberlist's.
func (t *muxTransport) StreamCh() <-chan net.Conn { return t.streams }

// PacketCh returns the packets that are memberlist's.
func (t *muxTransport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// WriteToAddress implements memberlist.NodeAwareTransport. It does not look up
// host names, which the address in a malformed packet may be taken for.
func (t *muxTransport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if _, err := netip.ParseAddrPort(a.Addr); err != nil {
		return time.Time{}, err
	}
	return t.NodeAwareTransport.WriteToAddress(b, a)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *muxTransport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	conn, err := t.dialStream(a, timeout)
	if err != nil || !t.header.encrypted {
		return conn, err
	}
	return &answerConn{Conn: conn}, nil
}

// dialStream dials a stream. What is written to it has to be taken in time.
func (t *muxTransport) dialStream(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(a.Addr); err != nil {
		return nil, err
	}
	conn, err := t.dial(a, timeout)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(sendTimeout))
	c := &trackedConn{Conn: conn, t: t}
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
	t.hangUpAll(dialedStream)
}

// hangUpAll closes all streams of a kind; t.mu is held. They are forgotten when
// those who have them close them.
func (t *muxTransport) hangUpAll(kind streamKind) {
	for e := t.open[kind].Front(); e != nil; e = e.Next() {
		e.Value.(*trackedConn).Conn.Close()
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
	for kind := range t.open {
		t.hangUpAll(streamKind(kind))
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
			c := &trackedConn{Conn: conn, t: t, inbound: true}
			if t.track(c, inboundStream) == nil {
				t.serving.Go(func() { t.dispatch(c) })
			}
		case <-t.stopped:
			return
		}
	}
}

// sift hands packets to memberlist, but for those it must not have. It goes on
// until the inner transport has shut down, which waits for its packets to be taken.
func (t *muxTransport) sift() {
	for {
		select {
		case packet := <-t.NodeAwareTransport.PacketCh():
			if err := t.header.checkPacket(packet.Buf); err != nil {
				t.refused(fmt.Sprintf("%v from=%v", err, packet.From))
				continue
			}
			select {
			case t.packets <- packet:
			case <-t.stopping:
			}
		case <-t.stopped:
			return
		}
	}
}

// dispatch finds out whose stream c is. It reads the header of what is for
// memberlist, so that a stranger gets no further.
func (t *muxTransport) dispatch(c *trackedConn) {
	c.SetReadDeadline(time.Now().Add(headerTimeout))
	var first [1]byte
	if _, err := io.ReadFull(c, first[:]); err != nil {
		c.Close()
		return
	}
	switch first[0] {
	case tripwireByte:
		t.tripwire(c, func() error { return t.track(c, tripwireStream) })
		return
	case certificateByte:
		t.certificate(c)
		return
	}
	c.SetReadDeadline(time.Now().Add(headerTimeout))
	head, size, err := t.header.read(first[0], c)
	if err != nil {
		if !t.wasPushedOut(c) && !t.isStopping() { // else it was told, or is our doing
			t.refused(fmt.Sprintf("%v from=%v", err, c.RemoteAddr()))
		}
		c.Close()
		return
	}
	c.pay(size)
	c.head = head
	c.SetReadDeadline(time.Time{})
	if !t.awaitRoom(c) {
		c.Close()
		return
	}
	select {
	case t.streams <- c:
	case <-t.stopping:
		c.Close()
	}
}
