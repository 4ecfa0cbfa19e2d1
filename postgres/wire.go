package postgres

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// beforeConnect is the hook of a pool.
type beforeConnect func(context.Context, *pgx.ConnConfig) error

// wire is the socket of a connection. Close does not close it, but cut: while
// leases are held, the end of both sockets at once is how others know that this
// process is dead. A connection that is given up while children run must not look
// like that, even if a server that was frozen hears of both ends at once when it
// wakes.
type wire struct {
	net.Conn
	let   func()      // takes it from its keeper
	muted atomic.Bool // nothing is sent any more
}

// Write sends nothing of what a connection says that is given up: TLS says by itself
// that it is over, which is an end as good as that of the socket.
func (w *wire) Write(p []byte) (int, error) {
	if w.muted.Load() {
		return len(p), nil
	}
	return w.Conn.Write(p)
}

// Close makes reads and writes fail.
func (w *wire) Close() error { return w.SetDeadline(time.Unix(1, 0)) }

func (w *wire) cut() {
	w.let()
	_ = w.Conn.Close() // what is there to be lost is lost
}

// staying keeps pgx from telling the server, as it gives a connection up, that this
// is over. While leases are held, its session ends by the next one's word, as by an
// administrator's, or with the process: were it to end in order, the ends of other
// clients' sessions might be taken for those of this process.
type staying struct {
	io.Writer
	parting *atomic.Bool
}

// terminate is the last message of a client.
var terminate = []byte{'X', 0, 0, 0, 4}

func (s staying) Write(p []byte) (int, error) {
	if bytes.Equal(p, terminate) && !s.parting.Load() {
		return len(p), nil
	}
	return s.Writer.Write(p)
}

// wires are the sockets of a session.
type wires struct {
	keep func(net.Conn) (let func(), err error) // nil: there is no keeper

	mu     sync.Mutex
	open   []*wire
	closed bool
	cancel []func() // for those that are being dialled
}

var errWiresClosed = errors.New("the session is closed")

// dialer wraps the DialFunc of a connection.
func (ws *wires) dialer(dial func(ctx context.Context, network, addr string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		ws.mu.Lock()
		ws.cancel = append(ws.cancel, cancel)
		ws.mu.Unlock()
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		ws.mu.Lock()
		defer ws.mu.Unlock()
		if ws.closed {
			return nil, errors.Join(errWiresClosed, conn.Close())
		}
		w := &wire{Conn: conn, let: func() {}}
		if ws.keep != nil {
			if w.let, err = ws.keep(conn); err != nil {
				return nil, errors.Join(err, conn.Close())
			}
		}
		ws.open = append(ws.open, w)
		return w, nil
	}
}

// mute lets the server hear nothing more of the sockets that are open.
func (ws *wires) mute() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, w := range ws.open {
		w.muted.Store(true)
	}
}

// close cuts all sockets, and those that are being dialled.
func (ws *wires) close() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.closed = true
	for _, cancel := range ws.cancel {
		cancel()
	}
	for _, w := range ws.open {
		w.cut()
	}
	ws.open, ws.cancel = nil, nil
}
