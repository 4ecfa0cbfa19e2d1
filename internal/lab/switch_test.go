//go:build linux

package lab

import (
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// wire is three namespaces joined by a switch, each with a socket in it.
type wire struct {
	*Switch
	spaces [3]*namespace
	socks  [3]net.PacketConn
}

func newWire(t testing.TB) *wire {
	t.Helper()
	needLab(t)
	w := &wire{}
	var taps []*os.File
	for i := range w.spaces {
		ns, err := newNamespace(i)
		must(t, err)
		w.spaces[i], taps = ns, append(taps, ns.tap)
		ns.do(func() { w.socks[i], err = net.ListenPacket("udp", nodeAddr(i).String()+":7") })
		must(t, err)
	}
	w.Switch = newSwitch(1, taps)
	t.Cleanup(func() {
		w.Switch.close()
		for i := range w.spaces {
			w.socks[i].Close()
			w.spaces[i].close()
		}
	})
	return w
}

func (w *wire) send(t testing.TB, from, to int, text string) {
	t.Helper()
	_, err := w.socks[from].WriteTo([]byte(text), net.UDPAddrFromAddrPort(addrPort(to, 7)))
	must(t, err)
}

func (w *wire) receive(t testing.TB, to int) string {
	t.Helper()
	buf := make([]byte, 2000)
	must(t, w.socks[to].SetReadDeadline(time.Now().Add(safetyNet)))
	n, _, err := w.socks[to].ReadFrom(buf)
	must(t, err)
	return string(buf[:n])
}

func (w *wire) expect(t testing.TB, to int, want string) {
	t.Helper()
	if got := w.receive(t, to); got != want {
		t.Fatalf("node %d receives %q, want %q", to, got, want)
	}
}

// meet lets all learn each other's hardware addresses.
func (w *wire) meet(t testing.TB) {
	t.Helper()
	for from := range w.socks {
		for to := range w.socks {
			if from != to {
				w.send(t, from, to, "hello")
				w.expect(t, to, "hello")
			}
		}
	}
}

func TestSwitchCutsEachDirectionByItself(t *testing.T) {
	w := newWire(t)
	w.meet(t)
	w.Set(func(from, to int) Link { return Link{Cut: from == 0 && to == 1} })
	w.send(t, 0, 1, "lost")
	w.send(t, 1, 0, "back")
	w.expect(t, 0, "back")
	// The switch takes up what a node sends in the order of the sending: when
	// this one has arrived, it has thrown the lost one away.
	w.send(t, 0, 2, "after the lost one")
	w.expect(t, 2, "after the lost one")
	w.Set(func(_, _ int) Link { return Link{} })
	w.send(t, 0, 1, "healed")
	w.expect(t, 1, "healed")
}

func TestSwitchLosesItsShare(t *testing.T) {
	w := newWire(t)
	const sent, share = 1000, 0.3
	w.Set(func(_, _ int) Link { return Link{Loss: share} })
	before := w.Frames()
	for range sent {
		w.carry(0, 1, make([]byte, headerLen))
	}
	if carried := w.Frames() - before; carried < 600 || carried > 800 {
		t.Errorf("%d of %d frames were carried at a loss of %v", carried, sent, share)
	}
}

func TestSwitchDelaysAndReorders(t *testing.T) {
	w := newWire(t)
	w.meet(t)
	const delay, jitter = 30 * time.Millisecond, 60 * time.Millisecond
	w.Set(func(from, _ int) Link {
		if from == 0 {
			return Link{Delay: delay, Jitter: jitter}
		}
		return Link{}
	})
	sent := time.Now()
	const letters = "abcdefghijklmnopqrstuvwxyz"
	for _, letter := range letters {
		w.send(t, 0, 1, string(letter))
	}
	var order strings.Builder
	order.WriteString(w.receive(t, 1))
	if took := time.Since(sent); took < delay {
		t.Errorf("the first one arrived after %v, want %v at least", took, delay)
	}
	for order.Len() < len(letters) {
		order.WriteString(w.receive(t, 1))
	}
	if order.String() == letters {
		t.Error("none overtook another")
	}
}

func BenchmarkSwitchStream(b *testing.B) {
	w := newWire(b)
	var listener net.Listener
	var client net.Conn
	var err error
	w.spaces[1].do(func() { listener, err = net.Listen("tcp", addrPort(1, 9).String()) })
	must(b, err)
	defer listener.Close()
	w.spaces[0].do(func() { client, err = net.Dial("tcp", addrPort(1, 9).String()) })
	must(b, err)
	server, err := listener.Accept()
	must(b, err)
	chunk := make([]byte, 64<<10)
	b.SetBytes(int64(len(chunk)))
	go func() {
		defer client.Close()
		for range b.N {
			if _, err := client.Write(chunk); err != nil {
				return
			}
		}
	}()
	n, err := io.Copy(io.Discard, server)
	must(b, err)
	if n != int64(b.N*len(chunk)) {
		b.Errorf("%d bytes arrived, want %d", n, b.N*len(chunk))
	}
	b.ReportMetric(float64(w.Frames())/b.Elapsed().Seconds(), "frames/s")
}
