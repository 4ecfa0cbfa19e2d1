package gossip

import (
	"container/list"
	"errors"
	"fmt"
	"net"
)

// What strangers may take up. A stream that came in has to prove itself by a
// message that can be read, or by the right question of a tripwire. Until then,
// the next one pushes out the oldest: so a member, who has something to say at
// once, gets in whatever number of others say nothing.
const (
	maxInboundStreams = 512      // that have proven nothing
	maxInboundBytes   = 32 << 20 // read from them, or to be made room for
	maxStream         = 4 << 20  // bytes in one of them

	// Those of the tripwire stay for as long as a node does. The ones that are
	// there stay, as who pushes them out blinds the cluster.
	maxInboundTripwires = 1024
)

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

// trackedConn is a stream that its transport knows until it is closed. What is
// read from one that came in is counted.
type trackedConn struct {
	net.Conn
	t       *muxTransport
	inbound bool   // it came in
	head    []byte // read already, to be read again
	read    int    // bytes
	paid    int    // bytes that were charged

	// Guarded by t.mu.
	kind    streamKind // zero: not known, or closed
	place   *list.Element
	charged int // bytes
	pushed  bool
	lingers int // bytes that it may hold though it was pushed out, until it is closed
}

// track makes c known, as a stream of a kind, until it is closed. If there can
// be no more of them it closes c and returns why.
func (t *muxTransport) track(c *trackedConn, kind streamKind) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.isStopping(), kind == dialedStream && t.dialing.Err() != nil, c.pushed:
		t.forget(c)
		c.Conn.Close()
		return errStopping
	case kind == tripwireStream && t.open[kind].Len() >= maxInboundTripwires:
		t.forget(c)
		c.Conn.Close()
		t.refused(errTooManyStreams.Error())
		return errTooManyStreams
	}
	t.forget(c)
	c.kind, c.place = kind, t.open[kind].PushBack(c)
	t.makeRoom()
	return nil
}

// charge counts n more bytes for a stream that came in.
func (t *muxTransport) charge(c *trackedConn, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.kind == inboundStream && n > 0 {
		c.charged += n
		t.bytes += n
		t.makeRoom()
	}
}

// makeRoom hangs up on the oldest streams that have proven nothing, while there
// are too many of them or they take too much; t.mu is held.
func (t *muxTransport) makeRoom() {
	for inbound := &t.open[inboundStream]; inbound.Len() > maxInboundStreams || t.bytes > maxInboundBytes; {
		oldest := inbound.Front().Value.(*trackedConn)
		oldest.pushed, oldest.lingers = true, oldest.charged
		t.lingering += oldest.lingers
		t.forget(oldest)
		oldest.Conn.Close()
		t.announce()
		t.refused(errTooManyStreams.Error())
	}
}

// awaitRoom waits while streams that were pushed out hold too much: on a busy
// machine it takes a while until those who read from them hear of it. It returns
// false if c is pushed out itself meanwhile.
func (t *muxTransport) awaitRoom(c *trackedConn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.lingering > maxInboundBytes && !c.pushed && !t.isStopping() {
		changed := t.changed
		t.mu.Unlock()
		select {
		case <-changed:
		case <-t.stopping:
		}
		t.mu.Lock()
	}
	return !c.pushed
}

// announce wakes those who wait in awaitRoom; t.mu is held.
func (t *muxTransport) announce() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// forget removes c from its list; t.mu is held.
func (t *muxTransport) forget(c *trackedConn) {
	if c.kind != 0 {
		t.open[c.kind].Remove(c.place)
		t.bytes -= c.charged
		c.kind, c.place, c.charged = 0, nil, 0
	}
}

func (t *muxTransport) wasPushedOut(c *trackedConn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return c.pushed
}

func (c *trackedConn) Read(b []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(b, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	if !c.inbound {
		return c.Conn.Read(b)
	}
	if c.read >= maxStream+maxHeader {
		return 0, errStreamTooLong
	}
	n, err := c.Conn.Read(b[:min(len(b), maxStream+maxHeader-c.read)])
	c.read += n
	c.pay(c.read)
	return n, err
}

// pay charges c for what it takes, bytes in all.
func (c *trackedConn) pay(bytes int) {
	if bytes > c.paid {
		c.t.charge(c, bytes-c.paid)
		c.paid = bytes
	}
}

func (c *trackedConn) Close() error {
	c.t.mu.Lock()
	c.t.forget(c)
	if c.lingers > 0 {
		c.t.lingering -= c.lingers
		c.lingers = 0
		c.t.announce()
	}
	c.t.mu.Unlock()
	return c.Conn.Close()
}
