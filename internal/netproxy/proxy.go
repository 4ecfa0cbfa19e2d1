// Package netproxy stands between a client and its server in tests, and drops
// what one of them sends, or both.
package netproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"highlander/internal/retry"
)

// Proxy passes on each connection that is made to Addr. All methods may be
// called concurrently.
//
// A cut does what a network does that loses packets: what is sent vanishes, the
// end of a connection included, and new connections are not made, though dialing
// succeeds. When it is mended, the connections that have lost something end; those
// that were idle go on.
type Proxy struct {
	network, upstream string
	listener          net.Listener
	ctx               context.Context // ends with Close
	cancel            context.CancelFunc
	running           sync.WaitGroup

	mu      sync.Mutex
	cut     [2]bool // by direction
	broken  int     // how often every connection was ended
	dropped int
	streams map[*stream]struct{} // that have an open end
}

// direction is where bytes go.
type direction int

const (
	toServer direction = iota
	toClient
)

// stream is a connection.
type stream struct {
	ends [2]net.Conn // by the direction that leads there; the server's is nil if it was dialed during a cut
	lost bool        // something that was sent; guarded by Proxy.mu
}

// New starts a proxy on a loopback port that passes connections on to an address
// of a network, "tcp" or "unix".
func New(network, upstream string) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start a proxy for %s: %w", upstream, err)
	}
	p := &Proxy{network: network, upstream: upstream, listener: listener, streams: map[*stream]struct{}{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.running.Go(p.accept)
	return p, nil
}

// Addr is where to connect to: host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// CutSend drops what clients send from now on.
func (p *Proxy) CutSend() { p.drop(toServer) }

// CutReceive drops what the server sends from now on.
func (p *Proxy) CutReceive() { p.drop(toClient) }

// Cut drops everything from now on.
func (p *Proxy) Cut() { p.drop(toServer, toClient) }

func (p *Proxy) drop(directions ...direction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range directions {
		p.cut[d] = true
		for s := range p.streams {
			s.setWriteDeadline(d, time.Now()) // a write that blocks must not go on
		}
	}
}

// Mend ends every cut.
func (p *Proxy) Mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = [2]bool{}
	for s := range p.streams {
		if s.lost {
			p.end(s)
			continue
		}
		s.setWriteDeadline(toServer, time.Time{})
		s.setWriteDeadline(toClient, time.Time{})
	}
}

// Dropped returns how many bytes were dropped so far. What was sent shortly before
// Mend may get through all the same, as it does on a network that sends it again.
func (p *Proxy) Dropped() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dropped
}

// Break ends every connection at once, at both ends.
func (p *Proxy) Break() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken++
	for s := range p.streams {
		p.end(s)
	}
}

// Close ends every connection and waits until nothing is left of the proxy. It is
// idempotent.
func (p *Proxy) Close() {
	p.listener.Close()
	p.cancel()
	p.Break()
	p.running.Wait()
}

func (p *Proxy) accept() {
	for pause := (retry.Backoff{First: time.Millisecond, Max: 100 * time.Millisecond}); ; {
		client, err := p.listener.Accept()
		switch {
		case p.ctx.Err() != nil:
			if err == nil {
				client.Close()
			}
			return
		case err != nil: // too many open files, or a client that is gone already
			pause.Sleep(p.ctx)
		default:
			pause.Reset()
			p.running.Go(func() { p.serve(client) })
		}
	}
}

// serve passes on what goes through a connection, in both directions.
func (p *Proxy) serve(client net.Conn) {
	s := p.open(client)
	if s == nil {
		client.Close()
		return
	}
	var both sync.WaitGroup
	if s.ends[toServer] != nil {
		both.Go(func() { p.pump(s, toClient) })
	}
	p.pump(s, toServer)
	both.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end(s)
}

// open connects a client to the server, or to nothing during a cut. It returns
// nil if the server cannot be reached, or the connection was ended meanwhile.
func (p *Proxy) open(client net.Conn) *stream {
	s := &stream{ends: [2]net.Conn{toClient: client}}
	p.mu.Lock()
	broken := p.broken
	s.lost = p.isCut()
	p.mu.Unlock()
	if !s.lost {
		server, err := (&net.Dialer{}).DialContext(p.ctx, p.network, p.upstream)
		if err != nil {
			return nil
		}
		s.ends[toServer] = server
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil || p.broken != broken || s.lost && !p.isCut() {
		p.end(s)
		return nil
	}
	p.streams[s] = struct{}{}
	return s
}

// isCut reports whether new connections are lost. The caller has the lock.
func (p *Proxy) isCut() bool { return p.cut[toServer] || p.cut[toClient] }

// pump passes on what goes in one direction until its source ends.
func (p *Proxy) pump(s *stream, d direction) {
	buf := make([]byte, 32<<10)
	for {
		n, err := s.ends[other(d)].Read(buf)
		if n > 0 && p.passes(s, d, n) {
			p.write(s, d, buf[:n])
		}
		if err != nil {
			p.passOnEnd(s, d, err)
			return
		}
	}
}

// passes reports whether n bytes get through; if not, they are dropped.
func (p *Proxy) passes(s *stream, d direction, n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut[d] || s.ends[d] == nil {
		s.lost = true
		p.dropped += n
		return false
	}
	return true
}

func (p *Proxy) write(s *stream, d direction, data []byte) {
	n, err := s.ends[d].Write(data)
	if err == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.cut[d]:
		s.lost = true
		p.dropped += len(data) - n
	case p.cut[other(d)]: // that nobody is there to receive it is lost on the way back
		s.lost = true
	default:
		p.end(s)
	}
}

// passOnEnd tells one end that the other has sent its last, or is gone.
func (p *Proxy) passOnEnd(s *stream, d direction, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	half, can := s.ends[d].(interface{ CloseWrite() error })
	switch {
	case p.cut[d]:
		s.lost = true
	case errors.Is(err, io.EOF) && can:
		half.CloseWrite()
	default:
		p.end(s)
	}
}

// end closes both ends. The caller has the lock.
func (p *Proxy) end(s *stream) {
	delete(p.streams, s)
	for _, conn := range s.ends {
		if conn != nil {
			conn.Close()
		}
	}
}

func (s *stream) setWriteDeadline(d direction, t time.Time) {
	if s.ends[d] != nil {
		s.ends[d].SetWriteDeadline(t)
	}
}

func other(d direction) direction { return 1 - d }
