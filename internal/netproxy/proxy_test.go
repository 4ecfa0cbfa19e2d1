package netproxy_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"highlander/internal/netproxy"
)

// patience is a safety net: no step is expected to need a noticeable part of it.
const patience = time.Minute

// world is a proxy before a server that the test plays itself.
type world struct {
	*testing.T
	*netproxy.Proxy
	accepted chan net.Conn
}

// onEachNetwork runs a test with a server on TCP and with one on a unix socket.
func onEachNetwork(t *testing.T, test func(w *world)) {
	t.Run("tcp", func(t *testing.T) { test(newWorld(t, "tcp", "127.0.0.1:0")) })
	t.Run("unix", func(t *testing.T) { test(newWorld(t, "unix", filepath.Join(t.TempDir(), "socket"))) })
}

func newWorld(t *testing.T, network, address string) *world {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		eventually(t, "goroutines were left behind", func() error { return goleak.Find(before) })
	})
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, accepted: make(chan net.Conn, 10)}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		defer close(w.accepted)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			w.accepted <- conn
		}
	})
	t.Cleanup(accepting.Wait)
	t.Cleanup(func() { listener.Close() })
	if w.Proxy, err = netproxy.New(network, listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// end is one end of a connection.
type end struct {
	*world
	net.Conn
}

// drops waits until so many bytes were dropped.
func (w *world) drops(n int) {
	w.Helper()
	eventually(w.T, "too little was dropped", func() error {
		if got := w.Dropped(); got < n {
			return fmt.Errorf("%d bytes were, want %d", got, n)
		}
		return nil
	})
}

// eventually waits until f returns nil.
func eventually(t *testing.T, wrong string, f func() error) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", wrong, err)
		}
	}
}

// connect returns both ends of a connection through the proxy.
func (w *world) connect() (client, server end) {
	w.Helper()
	client = w.dial()
	select {
	case conn := <-w.accepted:
		return client, w.end(conn)
	case <-time.After(patience):
		w.Fatal("the connection does not reach the server")
		return
	}
}

func (w *world) dial() end {
	w.Helper()
	conn, err := net.Dial("tcp", w.Addr())
	if err != nil {
		w.Fatal(err)
	}
	return w.end(conn)
}

func (w *world) end(conn net.Conn) end {
	w.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return end{w, conn}
}

func (e end) say(text string) {
	e.Helper()
	if _, err := e.Write([]byte(text)); err != nil {
		e.Fatal(err)
	}
}

func (e end) hear(text string) {
	e.Helper()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(e, got); err != nil || string(got) != text {
		e.Fatalf("heard %q (%v), want %q", got, err, text)
	}
}

// hearEnd checks that the connection ends, and nothing comes before that.
func (e end) hearEnd() {
	e.Helper()
	switch rest, err := io.ReadAll(e); {
	case len(rest) > 0:
		e.Fatalf("heard %q, want the end", rest)
	case errors.Is(err, os.ErrDeadlineExceeded):
		e.Fatal("the connection does not end")
	}
}

func TestBothDirectionsPass(t *testing.T) {
	onEachNetwork(t, func(w *world) {
		client, server := w.connect()
		client.say("question")
		server.hear("question")
		server.say("answer")
		client.hear("answer")
		client.Conn.Close()
		server.hearEnd()
	})
}

func TestOneSideMayStopSendingFirst(t *testing.T) {
	onEachNetwork(t, func(w *world) {
		client, server := w.connect()
		client.say("question")
		client.Conn.(*net.TCPConn).CloseWrite()
		server.hear("question")
		server.hearEnd()
		server.say("answer")
		client.hear("answer")
		server.Conn.Close()
		client.hearEnd()
	})
}

func TestCutSend(t *testing.T) {
	onEachNetwork(t, func(w *world) {
		client, server := w.connect()
		w.CutSend()
		client.say("question")
		server.say("word")
		client.hear("word")
		w.drops(len("question"))
		w.Mend()
		server.hearEnd()
		client.hearEnd()
	})
}

func TestCutReceive(t *testing.T) {
	onEachNetwork(t, func(w *world) {
		client, server := w.connect()
		w.CutReceive()
		server.say("word")
		client.say("question")
		server.hear("question")
		w.drops(len("word"))
		w.Mend()
		client.hearEnd()
		server.hearEnd()
	})
}

func TestConnectionThatLostNothingOutlivesTheCut(t *testing.T) {
	onEachNetwork(t, func(w *world) {
		client, server := w.connect()
		w.Cut()
		w.Mend()
		client.say("question")
		server.hear("question")
		server.say("answer")
		client.hear("answer")
	})
}

// The server must not learn that the client has gone, until the cut is mended: that
// is what makes a server keep a session that nobody has.
func TestEndOfAConnectionIsLostToo(t *testing.T) {
	for name, leave := range map[string]func(end){
		"closed": func(e end) { e.Conn.Close() },
		"reset": func(e end) {
			e.Conn.(*net.TCPConn).SetLinger(0)
			e.Conn.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			onEachNetwork(t, func(w *world) {
				client, server := w.connect()
				w.CutSend()
				leave(client)
				for range 50 { // to nobody, and nobody says so
					server.say("word")
				}
				server.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
				if _, err := server.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
					w.Fatalf("the server hears %v, want nothing", err)
				}
				server.SetReadDeadline(time.Now().Add(patience))
				w.Mend()
				server.hearEnd()
			})
		})
	}
}

func TestResetIsPassedOn(t *testing.T) {
	onEachNetwork(t, func(w *world) {
		client, server := w.connect()
		client.Conn.(*net.TCPConn).SetLinger(0)
		client.Conn.Close()
		server.hearEnd()
	})
}

func TestNoConnectionIsMadeDuringACut(t *testing.T) {
	for name, cut := range map[string]func(*world){
		"send": func(w *world) { w.CutSend() }, "receive": func(w *world) { w.CutReceive() }, "both": func(w *world) { w.Cut() },
	} {
		t.Run(name, func(t *testing.T) {
			onEachNetwork(t, func(w *world) {
				cut(w)
				client := w.dial()
				client.say("question")
				w.drops(len("question"))
				client.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
				if _, err := client.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
					w.Fatalf("the client hears %v, want nothing", err)
				}
				client.SetReadDeadline(time.Now().Add(patience))
				w.Mend()
				client.hearEnd()
				_, server := w.connect() // the first that the server sees
				server.say("word")
			})
		})
	}
}

func TestBreakEndsConnections(t *testing.T) {
	onEachNetwork(t, func(w *world) {
		client, server := w.connect()
		w.Break()
		client.hearEnd()
		server.hearEnd()
		client, server = w.connect()
		client.say("question")
		server.hear("question")
	})
}

func TestConnectionToAServerThatIsDownEnds(t *testing.T) {
	p, err := netproxy.New("unix", filepath.Join(t.TempDir(), "nobody"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, Proxy: p}
	t.Cleanup(w.Close)
	w.dial().hearEnd()
}

// The client is slowed down by a server that does not read. When the direction
// is cut, it is not, and what waits in the proxy is dropped.
func TestNothingIsBufferedWithoutBound(t *testing.T) {
	const plenty = 256 << 20
	onEachNetwork(t, func(w *world) {
		client, server := w.connect()
		chunk := make([]byte, 1<<20)
		sent := 0
		for sent < plenty {
			client.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			n, err := client.Write(chunk)
			sent += n
			if err != nil {
				break
			}
		}
		if sent >= plenty {
			w.Fatalf("the proxy has taken %d bytes that nobody read", sent)
		}
		w.CutSend()
		client.SetWriteDeadline(time.Now().Add(patience))
		for range 64 {
			if _, err := client.Write(chunk); err != nil {
				w.Fatalf("write during the cut: %v", err)
			}
		}
		w.Mend()
		got, err := io.Copy(io.Discard, server)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			w.Fatal("the connection does not end")
		}
		if got > int64(sent) {
			w.Errorf("%d bytes were sent before the cut, but %d have arrived", sent, got)
		}
	})
}

func TestCloseDuringTrafficLeavesNothing(t *testing.T) {
	onEachNetwork(t, func(w *world) {
		client, server := w.connect()
		idle, _ := w.connect()
		var talking sync.WaitGroup
		talking.Go(func() { io.Copy(server, server) })
		talking.Go(func() { io.Copy(client, client) })
		client.say("round and round")
		w.Close()
		eventually(w.T, "Close has left goroutines", func() error { // one that is waited for may be on its last step
			stacks := make([]byte, 1<<20)
			if stacks = stacks[:runtime.Stack(stacks, true)]; bytes.Contains(stacks, []byte("(*Proxy).")) {
				return errors.New(string(stacks))
			}
			return nil
		})
		w.Close()
		talking.Wait()
		idle.hearEnd()
	})
}
