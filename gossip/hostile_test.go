package gossip_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"highlander"
	"highlander/gossip"
)

const label = "\xf4\x0ahighlander" // the header of what is for this cluster

// garbage is what a scanner, another program or an attacker sends. All of it
// has to be dropped, and is counted where it can be told from nothing.
var garbage = []struct {
	name, data string
	ends       bool // on a stream it looks like one that ends early, which is nothing to count
}{
	{"no label", "\x01hello", false},
	{"http", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", false},
	{"tls", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", false},
	{"label byte alone", "\xf4", false},
	{"empty label", "\xf4\x00abc", false},
	{"truncated label", "\xf4\xffhigh", false},
	{"another label", "\xf4\x05greenabc", false},
	{"unknown type", label + "\x7fabc", false},
	{"ping that is none", label + "\x00\xc1\xc1\xc1", false},
	{"compressed garbage", label + "\x09\x82\xa4Algo\x00\xa3Buf\xc6\xff\xff\xff\xff", true},
	{"encrypted garbage", label + "\x0a\x00\x00\x00\x40" + strings.Repeat("x", 64), false},
	{"encrypted, huge", label + "\x0a\xff\xff\xff\xff", false},
}

var packetGarbage = []struct{ name, data string }{
	{"compound of nothing", label + "\x07\xff"},
	{"wrong checksum", label + "\x0c\x00\x00\x00\x01abcdef"},
	{"empty claims", label + "\x08c"},
	{"claims of another version", label + "\x08p\x63abc"},
	{"claims that promise too much", label + "\x08p\x01" + strings.Repeat("\x01", 26) + "\xff\xff\xff\xff\x0f"},
	{"short word", label + "\x08dabc"},
	{"long word", label + "\x08q" + strings.Repeat("x", 200)},
	{"unknown message", label + "\x08?abc"},
}

var streamGarbage = []struct {
	name, data string
	uncounted  bool
}{
	{"user message, huge", label + "\x08\x81\xaaUserMsgLen\xd3\x7f\xff\xff\xff\xff\xff\xff\xff", false},
	{"user message, negative", label + "\x08\x81\xaaUserMsgLen\xd3\xff\xff\xff\xff\xff\xff\xff\xff", false},
	{"user message, truncated", label + "\x08\x81\xaaUserMsgLen\x64abc", false},
	{"push-pull, huge", label + "\x06\x83\xa5Nodes\xce\x7f\xff\xff\xff\xacUserStateLen\x00\xa4Join\xc3", false},
	{"push-pull, negative", label + "\x06\x83\xa5Nodes\xff\xacUserStateLen\xff\xa4Join\xc3", false},
	{"push-pull with bad state", label + "\x06\x83\xa5Nodes\x00\xacUserStateLen\x03\xa4Join\xc3abc", false},
	{"tripwire for somebody else", "t\x0a\x05highlanderother", true},
	{"tripwire, truncated", "t\xff\xffhigh", true},
	{"tripwire byte alone", "t", true},
	{"death certificate, truncated", "d\x00\x40abc", false},
	{"death certificate, huge", "d\xff\xff", false},
	{"death certificate's byte alone", "d", false},
}

// victims opens two nodes, one of which holds an id.
func victims(t *testing.T, keys ...[]byte) (*world, []*gossip.Cluster, highlander.Lease) {
	t.Helper()
	w := newWorld(t)
	w.config.Keys = keys
	nodes := w.cluster(2)
	return w, nodes, acquire(t, nodes[0], "id")
}

// unharmed checks that the cluster works, nobody was lost, and the lease is
// kept.
func (w *world) unharmed(nodes []*gossip.Cluster, l highlander.Lease) {
	w.t.Helper()
	w.see(len(nodes), nodes...)
	passRound(w.t, nodes)
	held(w.t, l)
	if gone := w.logged("given up"); len(gone) > 0 {
		w.t.Errorf("a node was given up: %s", gone)
	}
}

func TestGarbageIsDropped(t *testing.T) {
	t.Parallel()
	for name, keys := range map[string][][]byte{"plain": nil, "encrypted": {bytes.Repeat([]byte{1}, 32)}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, nodes, l := victims(t, keys...)
			target := nodes[0]
			for _, g := range garbage {
				w.drops(target, g.name+" in a packet", func() { sendPacket(t, target, g.data) })
				if g.ends && keys == nil {
					sendStream(t, target, g.data)
				} else {
					w.drops(target, g.name+" on a stream", func() { sendStream(t, target, g.data) })
				}
			}
			for _, g := range packetGarbage {
				w.drops(target, g.name, func() { sendPacket(t, target, g.data) })
			}
			for _, g := range streamGarbage {
				if g.uncounted {
					sendStream(t, target, g.data)
				} else {
					w.drops(target, g.name, func() { sendStream(t, target, g.data) })
				}
			}
			w.unharmed(nodes, l)
		})
	}
}

// drops checks that a node counts one more when something is sent.
func (w *world) drops(c *gossip.Cluster, what string, send func()) {
	w.t.Helper()
	before := c.Dropped()
	send()
	for end := time.Now().Add(patience); c.Dropped() == before; {
		if time.Now().After(end) {
			w.t.Errorf("%s: was not counted", what)
			return
		}
	}
}

func sendPacket(t testing.TB, c *gossip.Cluster, data string) {
	t.Helper()
	conn, err := net.Dial("udp", c.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(data)); err != nil {
		t.Fatal(err)
	}
}

// sendStream sends all there is and waits until the node has hung up.
func sendStream(t *testing.T, c *gossip.Cluster, data string) {
	t.Helper()
	conn := dial(t, c)
	defer conn.Close()
	conn.Write([]byte(data))
	conn.(*net.TCPConn).CloseWrite()
	hungUp(t, conn)
}

func dial(t *testing.T, c *gossip.Cluster) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", c.Addr())
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// hungUp waits until the other side closes a stream.
func hungUp(t *testing.T, conn net.Conn) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Errorf("the stream stays open")
	}
}

// Random bytes behind every beginning that leads somewhere.
func TestRandomBytesAreDropped(t *testing.T) {
	t.Parallel()
	w, nodes, l := victims(t)
	random := rand.New(rand.NewPCG(1, 2))
	for _, start := range []string{"", "t", "d", "d\x00\x40", "\xf4", label, label + "\x00", label + "\x01", label + "\x02", label + "\x03", label + "\x04",
		label + "\x05", label + "\x06", label + "\x07", label + "\x08", label + "\x09", label + "\x0a", label + "\x0b", label + "\x0c",
		label + "\x08c\x01", label + "\x08p\x01", label + "\x08d", label + "\x08a"} {
		for _, size := range []int{0, 1, 7, 60, 1400, 60000} {
			data := make([]byte, size)
			for i := range data {
				data[i] = byte(random.Uint32())
			}
			sendPacket(t, nodes[0], start+string(data))
			sendStream(t, nodes[0], start+string(data))
		}
	}
	w.unharmed(nodes, l)
}

// Streams that say nothing, or say it very slowly, are hung up on, and leave
// room for others while they last.
func TestSlowAndSilentStreams(t *testing.T) {
	t.Parallel()
	w, nodes, l := victims(t)
	var conns []net.Conn
	for _, start := range []string{"", "\xf4", label, label + "\x06", label + "\x08\x81", "t", "t\x0a\x20", "d", "d\x00\x40"} {
		for range 20 {
			conn := dial(t, nodes[0])
			defer conn.Close()
			conn.Write([]byte(start))
			conns = append(conns, conn)
		}
	}
	w.unharmed(nodes, l)
	for _, conn := range conns {
		hungUp(t, conn)
	}
}

// However many streams say nothing, a new one that has something to say gets in.
func TestSilentStreamsArePushedOut(t *testing.T) {
	t.Parallel()
	w, nodes, l := victims(t)
	before := nodes[0].Dropped()
	for end := time.Now().Add(patience); nodes[0].Dropped() == before; { // on a slow machine, the first ones are hung up on by then
		if time.Now().After(end) {
			t.Fatal("no stream is pushed out")
		}
		conn := dial(t, nodes[0])
		defer conn.Close()
	}
	conn := dial(t, nodes[0])
	defer conn.Close()
	conn.Write(gossip.Question(gossip.DefaultLabel, nodes[0].Node()))
	answer := make([]byte, 1)
	if _, err := io.ReadFull(conn, answer); err != nil || answer[0] != 'y' {
		t.Errorf("the newest stream is answered %q, %v", answer, err)
	}
	w.unharmed(nodes, l)
}

// Who has the name of a node, which travels in the clear, can hold a tripwire's
// stream, but not so many that there is no room for messages.
func TestTooManyTripwiresAreRefused(t *testing.T) {
	t.Parallel()
	w, nodes, l := victims(t)
	question := gossip.Question(gossip.DefaultLabel, nodes[0].Node())
	w.drops(nodes[0], "1100 tripwires", func() {
		for range 1100 {
			conn := dial(t, nodes[0])
			defer conn.Close()
			conn.Write(question)
			io.ReadFull(conn, make([]byte, 1))
		}
	})
	w.unharmed(nodes, l)
}

// A stream without an end is not read to the end.
func TestEndlessStream(t *testing.T) {
	t.Parallel()
	w, nodes, l := victims(t)
	conn := dial(t, nodes[0])
	defer conn.Close()
	conn.Write([]byte(label + "\x08\x81\xaaUserMsgLen\xce\x01\x31\x2d\x00")) // 20,000,000 bytes
	conn.(*net.TCPConn).SetWriteBuffer(64 << 10)
	conn.SetWriteDeadline(time.Now().Add(patience))
	if n, err := io.Copy(conn, io.LimitReader(zeros{}, 20_000_000-1)); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("the node has taken %d bytes: %v", n, err)
	}
	w.unharmed(nodes, l)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// Everything that was ever said, said again by somebody who has listened: of
// holders that are no more, of nodes that died, left, or were taken for dead.
func TestReplaysChangeNothing(t *testing.T) {
	t.Parallel()
	for name, keys := range map[string][][]byte{"plain": nil, "encrypted": {bytes.Repeat([]byte{1}, 32)}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.config.Keys = keys
			nodes := w.cluster(2)
			for _, c := range nodes {
				w.faults[c].Record()
			}
			passRound(t, nodes)
			first := acquire(t, nodes[0], "id")

			dies, leaves := w.join("dies", nodes[0]), w.join("leaves", nodes[0])
			all := append(slices.Clone(nodes), dies, leaves)
			w.see(4, all...)
			w.watchAll(all...)
			w.faults[leaves].Record()
			dies.Crash()
			w.see(3, append(slices.Clone(nodes), leaves)...)
			leaves.Close()
			w.see(2, nodes...)

			// One is taken for dead by the other one, and takes it back.
			w.faults[nodes[1]].Refuse(nodes[0].Addr())
			w.faults[nodes[1]].Break(nodes[0].Addr())
			w.awaitLog("is alive", 1)
			w.see(2, nodes...)
			w.faults[nodes[1]].Refuse()
			first.Release(t.Context())
			l := acquire(t, nodes[1], "id")
			passRound(t, nodes)

			before := w.happened()
			for range 2 {
				for _, c := range nodes {
					w.faults[c].Replay()
				}
			}
			passRound(t, nodes)
			w.see(2, nodes...)
			held(t, l)
			for _, c := range nodes {
				w.awaitHolder(c, "id", nodes[1])
			}
			if after := w.happened(); after != before {
				t.Errorf("the replay changed views or leases: %d lines in the log before, %d after", before, after)
			}
		})
	}
}

// What was said, said again in part, or with bits turned over where there is a key
// that shows it.
func TestMangledReplaysChangeNothing(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	cutShort := func(b []byte) []byte { return b[:random.IntN(max(len(b), 1))] }
	turnOver := func(b []byte) []byte {
		if len(b) > len(label) {
			b[len(label)+random.IntN(len(b)-len(label))] ^= 1 << random.IntN(8)
		}
		return b
	}
	// The byte that says how a message is encrypted is not authenticated.
	otherVersion := func(b []byte) []byte {
		at := len(label)
		if len(b) > at && b[at] == 10 { // a stream: the type and the length come first
			at += 5
		}
		if len(b) > at {
			b[at] = 0
		}
		return b
	}
	key := [][]byte{bytes.Repeat([]byte{1}, 32)}
	quorum := gossip.Config{Quorum: 2, TTL: shortTTL, Keys: key}
	for name, test := range map[string]struct {
		config gossip.Config
		mangle func([]byte) []byte
	}{
		"cut short, plain": {gossip.Config{}, cutShort}, "cut short, encrypted": {gossip.Config{Keys: key}, cutShort}, "cut short, quorum": {quorum, cutShort},
		"other encryption":       {gossip.Config{Keys: key}, otherVersion},
		"turned over, encrypted": {gossip.Config{Keys: key}, turnOver}, "turned over, quorum": {quorum, turnOver},
	} {
		t.Run(name, func(t *testing.T) { // one after the other: they share the dice
			w := newWorld(t)
			w.config = test.config
			nodes := w.quorum("a", "b", "c")
			for _, c := range nodes {
				w.faults[c].Record()
			}
			l := acquire(t, nodes[0], "id")
			passRound(t, nodes)
			before := w.happened()
			for range 5 {
				for _, c := range nodes {
					w.faults[c].ReplayMangled(test.mangle)
				}
			}
			passRound(t, nodes)
			w.see(3, nodes...)
			held(t, l)
			if after := w.happened(); after != before {
				t.Errorf("it changed views or leases: %d lines in the log before, %d after", before, after)
			}
		})
	}
}

// Somebody without the key has recorded a message. The byte in it that says how it
// is encrypted is not authenticated, and memberlist panics at the other value.
func TestStrangerDoesNotChangeHowAMessageIsEncrypted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := bytes.Repeat([]byte{1}, 32)
	w.config = gossip.Config{Keys: [][]byte{key}}
	nodes := w.cluster(1)
	l := acquire(t, nodes[0], "id")

	packet, err := net.Dial("udp", nodes[0].Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer packet.Close()
	packet.Write(append([]byte(label), sealed(t, key, gossip.DefaultLabel)...))
	w.awaitLog("with encryption 0", 1)

	stream, err := net.Dial("tcp", nodes[0].Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	head := []byte{10, 0, 0, 0, byte(len(sealed(t, key, "")))}
	stream.Write(slices.Concat([]byte(label), head, sealed(t, key, string(head)+gossip.DefaultLabel)))
	io.Copy(io.Discard, stream) // until it hangs up
	held(t, l)
}

// sealed returns a message that the key opens, as version 0 of the encryption: its
// last byte is a padding that is longer than all of it.
func sealed(t *testing.T, key []byte, authenticated string) []byte {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonce := make([]byte, gcm.NonceSize())
	padded := append(bytes.Repeat([]byte{0}, 31), 0xff)
	return slices.Concat([]byte{0}, nonce, gcm.Seal(nil, nonce, padded, []byte(authenticated)))
}

// happened counts the lines in the log about changes.
func (w *world) happened() int {
	return len(w.logged("is gone")) + len(w.logged("is alive")) + len(w.logged("node joined")) + len(w.logged("node left")) + len(w.logged("lost the lease"))
}

// A departure counts once, however often and late its copies arrive.
func TestReplayedDepartureIsDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nodes := w.cluster(3)
	id := func(c *gossip.Cluster) uint64 { return gossip.Incarnation(c.Node()) }
	departed := gossip.Word(gossip.WordDeparted, id(nodes[1]), id(nodes[0]), 1000, id(nodes[2]))
	for _, c := range nodes { // those that are new are told of departures again
		for end := time.Now().Add(patience); c.HasNewNodes(); <-time.After(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s takes nodes for new", c.Node())
			}
		}
	}
	for range 3 {
		nodes[0].Receive(departed)
	}
	w.awaitLog("is alive", 1)
	w.see(3, nodes...)
	passRound(t, nodes)
	nodes[0].Receive(departed)
	passRound(t, nodes)
	if alive := w.logged("is alive"); len(alive) != 1 {
		t.Errorf("the node was taken for gone %d times: %s", len(alive), alive)
	}
}

// An old answer does not bring a dead node back.
func TestReplayedAnswerIsDropped(t *testing.T) {
	t.Parallel()
	w, nodes := blindCluster(t, 2)
	id := func(c *gossip.Cluster) uint64 { return gossip.Incarnation(c.Node()) }
	nodes[1].Crash()
	w.see(1, nodes[0])
	nodes[0].Receive(gossip.Word(gossip.WordAnswer, id(nodes[1]), id(nodes[0]), 0, 0))
	held(t, acquire(t, nodes[0], "id")) // would wait for a vote
	w.see(1, nodes[0])
	if alive := w.logged("is alive"); len(alive) > 0 {
		t.Errorf("the dead node is back: %s", alive)
	}
}

// Nodes that nobody could be at are refused, before anything is sent to them.
func TestNodesWithBadAddressesAreRefused(t *testing.T) {
	t.Parallel()
	w, nodes, l := victims(t)
	for _, alive := range []string{
		aliveMessage("x#0000000000000001", "\x01\x02\x03", 7946),
		aliveMessage("x#0000000000000002", "", 7946),
		aliveMessage("x#0000000000000003", "\x00\x00\x00\x00", 7946),
		aliveMessage("x#0000000000000000", "\x7f\x00\x00\x01", 7946),
		aliveMessage("no incarnation", "\x7f\x00\x00\x01", 7946),
		aliveMessage("x#"+strings.Repeat("0", 500), "\x7f\x00\x00\x01", 7946),
	} {
		w.drops(nodes[0], "a bad node", func() { sendPacket(t, nodes[0], label+"\x04"+alive) })
	}
	w.unharmed(nodes, l)
}

// Trap 32: one sick node says of a healthy one that it is dead, and all others
// believe it. The healthy one is asked before anything is done about it.
func TestDeadOnHearsayChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nodes := w.cluster(3)
	s := newStage(t, "id")
	for _, c := range nodes {
		s.wrap(c)
	}
	holder, others := pick(nodes, s.oneRuns())
	for incarnation := byte(10); incarnation < 60; incarnation += 10 { // it contradicts each time
		for _, c := range others {
			sendPacket(t, c, label+"\x05"+deadMessage(holder.Node(), incarnation))
		}
		passRound(t, others)
	}
	w.see(3, nodes...)
	s.runsOn(holder)
	s.never(1)
	if given := w.logged("given up"); len(given) > 0 {
		t.Errorf("a node was given up: %s", given)
	}
}

// The last word on a node is not its port's: one that answers there, but not as
// a member, goes in the end.
func TestNodeThatOnlyAnswersIsGivenUp(t *testing.T) {
	t.Parallel()
	w := watchfulWorld(t)
	nodes := w.cluster(2)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	defer serving.Wait()
	defer l.Close()
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Write([]byte("y"))
			serving.Go(func() {
				defer conn.Close()
				io.Copy(io.Discard, conn)
			})
		}
	})
	port := uint16(portOf(t, l.Addr().String()))
	sendPacket(t, nodes[0], label+"\x04"+aliveMessage("x#0000000000000001", "\x7f\x00\x00\x01", port))
	w.awaitLog("node joined", 4)
	w.see(2, nodes...)
	held(t, acquire(t, nodes[1], "id"))
}

func text(s string) string {
	return "\xda" + string(binary.BigEndian.AppendUint16(nil, uint16(len(s)))) + s
}

// deadMessage is memberlist's message about a dead node, in msgpack.
func deadMessage(name string, incarnation byte) string {
	return "\x83" + text("Incarnation") + string([]byte{incarnation}) + text("Node") + text(name) + text("From") + text("sick")
}

// aliveMessage is memberlist's message about a live node, in msgpack.
func aliveMessage(name, ip string, port uint16) string {
	return aliveMessageOf(name, ip, port, 1, gossip.VoterMeta)
}

// aliveMessageOf is aliveMessage with memberlist's incarnation and a meta.
func aliveMessageOf(name, ip string, port uint16, incarnation byte, meta string) string {
	return "\x86" +
		text("Incarnation") + string([]byte{incarnation}) + text("Node") + text(name) + text("Addr") + text(ip) +
		text("Port") + "\xcd" + string(binary.BigEndian.AppendUint16(nil, port)) +
		text("Meta") + text(meta) + text("Vsn") + text("\x01\x05\x05\x00\x00\x00")
}

// FuzzReceive: whatever reaches a node behind the key and the label, it goes on.
// What comes from a member has the names of this run in it.
//
// The nodes live, so the same input does not always take the same way, which Go
// takes for a discovery that it then tries to minimize, for a minute each time:
// give it -fuzzminimizetime 10x.
func FuzzReceive(f *testing.F) {
	w := newWorld(f)
	nodes := w.cluster(2)
	f.Add([]byte{}, false)
	f.Add([]byte{gossip.KindClaims, 1, 2, 3}, false)
	f.Add(append([]byte{gossip.KindPacket, 1}, make([]byte, 26)...), true)
	for _, kind := range []byte{gossip.WordGoodbye, gossip.WordDeparted, gossip.WordAnswer, 'q'} {
		f.Add(gossip.Word(kind, 1, 2, 3, 4), false)
		f.Add(gossip.Word(kind, 0, 0, 3, 0), true)
	}
	f.Fuzz(func(t *testing.T, message []byte, member bool) {
		message = bytes.Clone(message)
		if member {
			sign(message, nodes[1], nodes[0])
		}
		nodes[0].Receive(message)
		if _, err := nodes[0].Holders(context.Background()); err != nil { // the agent goes on
			t.Fatal(err)
		}
	})
}

// sign makes a message one from a node to another.
func sign(message []byte, from, to *gossip.Cluster) {
	ids := 1
	if len(message) > 0 && (message[0] == gossip.KindClaims || message[0] == gossip.KindPacket) {
		ids = 2 // behind the version
	}
	if len(message) >= ids+16 {
		binary.BigEndian.PutUint64(message[ids:], gossip.Incarnation(from.Node()))
		binary.BigEndian.PutUint64(message[ids+8:], gossip.Incarnation(to.Node()))
	}
}
