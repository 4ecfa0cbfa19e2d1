package postgres_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"highlander"
)

// pooler is a proxy that gives a client a session of the server for one
// transaction at a time, as pgbouncer does with pool_mode = transaction.
type pooler struct {
	listener net.Listener
	running  sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
	idle  []*pgconn.HijackedConn
	last  bool // use again what was used last, as pgbouncer does, and not first

	byStatement atomic.Bool // refuses transactions, as pgbouncer does with pool_mode = statement
}

// newPooler starts one with so many sessions.
func (w *world) newPooler(sessions int, last bool) *pooler {
	w.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	p := &pooler{listener: listener, last: last}
	for range sessions {
		conn, err := pgx.Connect(w.Context(), w.server.URL())
		if err != nil {
			w.Fatal(err)
		}
		session, err := conn.PgConn().Hijack()
		if err != nil {
			w.Fatal(err)
		}
		p.conns = append(p.conns, session.Conn)
		p.idle = append(p.idle, session)
	}
	p.running.Go(p.accept)
	w.after = append(w.after, p.close)
	return p
}

func (p *pooler) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	for _, conn := range p.conns {
		_ = conn.Close()
	}
	p.mu.Unlock()
	p.running.Wait()
}

func (p *pooler) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		p.conns = append(p.conns, client)
		p.mu.Unlock()
		p.running.Go(func() {
			defer func() { _ = client.Close() }()
			_ = p.serve(client) // its end is seen by the client
		})
	}
}

// take returns a session. There are more of them than clients.
func (p *pooler) take() *pgconn.HijackedConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := 0
	if p.last {
		i = len(p.idle) - 1
	}
	session := p.idle[i]
	p.idle = append(p.idle[:i:i], p.idle[i+1:]...)
	return session
}

func (p *pooler) giveBack(session *pgconn.HijackedConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, session)
}

func (p *pooler) serve(client net.Conn) error {
	c := pgproto3.NewBackend(client, client)
	if _, err := c.ReceiveStartupMessage(); err != nil {
		return err
	}
	c.Send(&pgproto3.AuthenticationOk{})
	c.Send(&pgproto3.ParameterStatus{Name: "standard_conforming_strings", Value: "on"})
	c.Send(&pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"})
	c.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 1}})
	c.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if err := c.Flush(); err != nil {
		return err
	}
	for {
		first, err := c.Receive()
		if err != nil {
			return err
		}
		if query, is := first.(*pgproto3.Query); is && query.String == "begin" && p.byStatement.Load() {
			c.Send(&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "08P01", Message: "transaction blocks not allowed in statement pooling mode"})
			return c.Flush()
		}
		session := p.take()
		err = transaction(c, session, first)
		p.giveBack(session)
		if err != nil {
			return err
		}
	}
}

// transaction passes messages on until the session is out of a transaction.
func transaction(c *pgproto3.Backend, session *pgconn.HijackedConn, message pgproto3.FrontendMessage) error {
	for {
		switch message.(type) {
		case *pgproto3.Terminate:
			return io.EOF
		case *pgproto3.Query, *pgproto3.Sync:
			session.Frontend.Send(message)
			if err := session.Frontend.Flush(); err != nil {
				return err
			}
			status, err := answer(c, session.Frontend)
			if err != nil || status == 'I' {
				return err
			}
		default:
			session.Frontend.Send(message)
		}
		var err error
		if message, err = c.Receive(); err != nil {
			return err
		}
	}
}

// answer passes on what the server says until it is ready for more.
func answer(c *pgproto3.Backend, session *pgproto3.Frontend) (status byte, err error) {
	for {
		message, err := session.Receive()
		if err != nil {
			return 0, err
		}
		c.Send(message)
		if ready, is := message.(*pgproto3.ReadyForQuery); is {
			return ready.TxStatus, c.Flush()
		}
	}
}

func (p *pooler) url() string {
	return "postgres://app@" + p.listener.Addr().String() + "/app?sslmode=disable"
}

func TestTransactionPoolerIsRefused(t *testing.T) {
	t.Parallel()
	for _, last := range []bool{true, false} {
		for _, sessions := range []int{3, 4, 9} {
			w := newWorld(t, sharedServer(t), forever)
			c := w.open(w.newPooler(sessions, last).url(), "node")
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			_, err := c.Acquire(ctx, "id", highlander.AcquireOptions{})
			if err == nil || !strings.Contains(err.Error(), "pooled by transaction") {
				t.Errorf("%d sessions: error is %v, want one that says that it is pooled by transaction", sessions, err)
			}
			if !w.log.has("cannot take part") || w.log.has("trying for as long as it takes") {
				t.Error("the log does not say once that it cannot take part")
			}
		}
	}
}

func TestStatementPoolerIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharedServer(t), forever)
	p := w.newPooler(3, true)
	p.byStatement.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := w.open(p.url(), "node").Acquire(ctx, "id", highlander.AcquireOptions{}); err == nil || !strings.Contains(err.Error(), "pool_mode = session") {
		t.Errorf("error is %v, want one that says what to do", err)
	}
}

// What only reads may use a pooler.
func TestLookupWorksThroughATransactionPooler(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharedServer(t), forever)
	l := w.acquire(w.open(w.server.URL(), "holder"), "id")
	status := w.open(w.newPooler(3, false).url(), "status")
	for range 3 {
		if h, err := status.Lookup(t.Context(), "id"); err != nil || h.Token != l.Token() {
			t.Fatalf("Lookup: %v, %v; want the holder with token %d", h, err, l.Token())
		}
	}
	if _, err := status.Lookup(t.Context(), "nobody's"); !errors.Is(err, highlander.ErrNotHeld) {
		t.Errorf("Lookup of an id that nobody has: %v", err)
	}
}
