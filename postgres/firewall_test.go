package postgres_test

import (
	"errors"
	"net"
	"net/url"
	"sync"
)

// firewall passes on what clients and the server send, until it rejects what the
// server sends: then it answers the first byte with a reset, and tells the client
// nothing.
type firewall struct {
	w        *world
	url      string
	listener net.Listener
	running  sync.WaitGroup

	mu        sync.Mutex
	rejecting bool
	clients   []net.Conn
}

func (w *world) newFirewall() *firewall {
	w.Helper()
	u, err := url.Parse(w.server.URL())
	if err != nil {
		w.Fatal(err)
	}
	f := &firewall{w: w}
	if f.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		w.Fatal(err)
	}
	u.Host = f.listener.Addr().String()
	f.url = u.String()
	f.running.Go(f.accept)
	w.Cleanup(f.close)
	return f
}

func (f *firewall) reject() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rejecting = true
}

func (f *firewall) rejects() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rejecting
}

func (f *firewall) close() {
	_ = f.listener.Close()
	f.mu.Lock()
	for _, c := range f.clients {
		_ = c.Close()
	}
	f.mu.Unlock()
	f.running.Wait()
}

func (f *firewall) accept() {
	for {
		client, err := f.listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				f.w.Error(err)
			}
			return
		}
		f.mu.Lock()
		f.clients = append(f.clients, client)
		f.mu.Unlock()
		server, err := net.Dial("tcp", f.w.server.Addr())
		if err != nil {
			f.w.Error(err)
			_ = client.Close()
			continue
		}
		f.running.Go(func() { f.toServer(client, server) })
		f.running.Go(func() { f.toClient(client, server) })
	}
}

// toServer goes on when the server is gone: the client is not to hear of it.
func (f *firewall) toServer(client, server net.Conn) {
	defer server.Close()
	buf := make([]byte, 4096)
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		_, _ = server.Write(buf[:n])
	}
}

func (f *firewall) toClient(client, server net.Conn) {
	buf := make([]byte, 4096)
	for {
		n, err := server.Read(buf)
		switch {
		case err != nil:
			return
		case f.rejects():
			_ = server.(*net.TCPConn).SetLinger(0)
			_ = server.Close()
			return
		}
		_, _ = client.Write(buf[:n])
	}
}
