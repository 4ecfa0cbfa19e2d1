//go:build unix

package gossip_test

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"highlander"
	"highlander/gossip"
)

// The floods run one after the other, in a process of their own: they measure its
// memory and its goroutines. What sends is yet another process.

// The figures of docs/guarantees.md: go test ./gossip -run Floods -v -floods 5s
var floodFor = flag.Duration("floods", time.Second, "how long each flood lasts")

// floodMemory is how much more memory three nodes may take under a flood than
// before, in bytes. The figures that are printed are well below.
const floodMemory = 256 << 20

const floodEnv = "HIGHLANDER_TEST_FLOOD" // KIND ADDR DURATION START

// The race detector makes everything ten times as slow.
var floodRate, floodStreams = 100e6, 10_000 // bytes a second; connections

func init() {
	if raceEnabled {
		floodRate, floodStreams = floodRate/10, floodStreams/10
	}
	if os.Getenv(floodEnv) != "" {
		floodMain()
	}
}

var floods = []struct {
	name, kind, start string
	in                string // in which cluster; empty: in both, also with -short and with the race detector
}{
	{"nothing, to compare with", "nothing", "", "encrypted"},
	{"packets of noise", "packets", "", ""},
	{"packets that look encrypted", "packets", label + "\x01", "encrypted"},
	{"packets of pings", "packets", label + "\x00\x83\xa5SeqNo\x01\xa4Node\xa1x", "plain"},
	{"packets of claims", "packets", label + "\x08p\x01", "plain"},
	{"streams of noise", "streams", "", "encrypted"},
	{"streams that promise a long message", "streams", label + "\x08\x81\xaaUserMsgLen\xce\x00\x10\x00\x00", "plain"},
	{"streams that promise a long encrypted message", "streams", label + "\x0a\x00\x3f\x00\x00", ""},
	{"streams that promise many nodes", "streams", label + "\x06\x83\xa5Nodes\xcd\x0f\xff\xacUserStateLen\x00\xa4Join\xc3", "plain"},
	{"streams that promise a million nodes", "streams", label + "\x06\x83\xa5Nodes\xce\x00\x0f\xff\xff\xacUserStateLen\x00\xa4Join\xc3", "plain"},
	{"connections that say nothing", "connections", "", ""},
	{"connections that say half a label", "connections", label[:5], "encrypted"},
	{"connections that say half a header", "connections", label + "\x08\x81\xaaUser", "plain"},
	{"connections that promise a message", "connections", label + "\x08\x81\xaaUserMsgLen\xce\x00\x10\x00\x00", "plain"},
	{"connections that promise an encrypted message", "connections", label + "\x0a\x00\x3f\x00\x00", "encrypted"},
	{"connections that say one byte of a tripwire", "connections", "t", "encrypted"},
	{"connections that hold a tripwire", "connections", "TRIPWIRE", "encrypted"}, // of the node
	{"connections that ask and do not read", "deaf", label + "\x06\x83\xa5Nodes\x00\xacUserStateLen\x00\xa4Join\xc3", "plain"},
}

func TestFloods(t *testing.T) {
	alone(t, func(t *testing.T) {
		t.Run("plain", func(t *testing.T) { floodAvailable(t, "plain", nil) })
		t.Run("encrypted", func(t *testing.T) { floodAvailable(t, "encrypted", bytes.Repeat([]byte{1}, 32)) })
		t.Run("quorum", floodQuorum)
	}, "nice", "-n", "-10") // what else goes on here is no part of the flood; without the right to it, a warning
}

func floodAvailable(t *testing.T, name string, keys []byte) {
	for _, f := range floods {
		if f.in != "" && (f.in != name || testing.Short() || raceEnabled) {
			continue
		}
		t.Run(strings.ReplaceAll(f.name, " ", "_"), func(t *testing.T) {
			w := watchfulWorld(t)
			if keys != nil {
				w.config.Keys = [][]byte{keys}
			}
			w.flood(t, w.cluster(3), f.kind, f.start)
		})
	}
}

// In quorum mode a lease is kept only if its renewals get through in time.
func floodQuorum(t *testing.T) {
	for _, f := range floods {
		if f.in != "" {
			continue
		}
		t.Run(strings.ReplaceAll(f.name, " ", "_"), func(t *testing.T) {
			w := watchfulWorld(t)
			w.config = gossip.Config{Quorum: 2, TTL: 3 * time.Second, Keys: [][]byte{bytes.Repeat([]byte{1}, 32)}}
			nodes := w.quorum("target", "waits", "dies")
			w.config.Observer, w.config.Quorum, w.config.TTL = true, 0, 0 // who joins later
			w.flood(t, nodes, f.kind, f.start)
		})
	}
}

// flood floods a node of three. It keeps its lease, for which another node
// waits; leases go from node to node, nodes join, and one that dies is taken over
// from. When the flood is over, nothing is left of it.
func (w *world) flood(t *testing.T, nodes []*gossip.Cluster, kind, start string) {
	target, waits, dies := nodes[0], nodes[1], nodes[2]
	kept := acquire(t, target, "kept")
	acquireSoon(t, waits, "kept")
	acquire(t, dies, "taken over")
	passRound(t, nodes)
	before := usage()
	most := watchUsage()
	f := startFlood(t, kind, target, start)
	f.says("flowing")

	handovers := 0
	for ; f.flowing(); handovers += 6 {
		passRound(t, nodes[:2])
	}
	began := time.Now()
	late := w.join("late", target)
	w.see(4, append(nodes, late)...)
	joined := time.Since(began)
	next := acquireSoon(t, target, "taken over")
	began = time.Now()
	dies.Crash()
	held(t, receive(t, next, "the lease of the dead node"))
	taken := time.Since(began)

	sent := f.end()
	peak := most()
	w.see(3, target, waits, late)
	passRound(t, nodes[:2])
	held(t, kept)
	w.closeAll()
	after := settled(t)
	t.Logf("%s; %d hand-overs, a node joins in %v, a take-over takes %v, %d dropped; memory: before %v, at most %v, after %v",
		sent, handovers, joined.Round(time.Millisecond), taken.Round(time.Millisecond), target.Dropped(), before, peak, after)
	grown := peak.rss - before.rss
	if peak.rss == 0 { // there is no /proc: the heap has what was not swept yet in it, too
		grown = peak.heap - before.heap
	}
	if grown > floodMemory {
		t.Errorf("the nodes took more than %d MB", floodMemory>>20)
	}
}

// acquireSoon waits for a lease until the test ends.
func acquireSoon(t *testing.T, c *gossip.Cluster, id string) <-chan highlander.Lease {
	got := make(chan highlander.Lease, 1)
	go func() {
		if l, err := c.Acquire(context.Background(), id, highlander.AcquireOptions{}); err == nil { // else the node was closed
			got <- l
		}
	}()
	return got
}

// settled waits until nothing is left of the nodes, and of the flood.
func settled(t *testing.T) memory {
	t.Helper()
	if !leavesNothing() {
		t.Error("goroutines were left behind")
	}
	runtime.GC()
	return usage()
}

// memory is what this process uses, in bytes.
type memory struct{ heap, rss, goroutines int }

func (m memory) String() string {
	return fmt.Sprintf("heap %d MB, RSS %d MB, %d goroutines", m.heap>>20, m.rss>>20, m.goroutines)
}

func usage() memory {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	m := memory{heap: int(s[0].Value.Uint64()), goroutines: runtime.NumGoroutine()}
	if statm, err := os.ReadFile("/proc/self/statm"); err == nil { // where there is none, the heap has to do
		if fields := strings.Fields(string(statm)); len(fields) > 1 {
			pages, _ := strconv.Atoi(fields[1])
			m.rss = pages * os.Getpagesize()
		}
	}
	return m
}

// watchUsage looks at the memory again and again, and returns the most of each
// when it is called.
func watchUsage() func() memory {
	var most memory
	stop := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			now := usage()
			most = memory{max(most.heap, now.heap), max(most.rss, now.rss), max(most.goroutines, now.goroutines)}
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	})
	return func() memory {
		close(stop)
		watching.Wait()
		return most
	}
}

// flooder is the process that sends.
type flooder struct {
	t     *testing.T
	lines chan string
	stdin io.Closer
}

func startFlood(t *testing.T, kind string, target *gossip.Cluster, start string) *flooder {
	t.Helper()
	if start == "TRIPWIRE" {
		start = string(gossip.Question(gossip.DefaultLabel, target.Node()))
	}
	cmd := exec.Command("nice", "-n", "40", os.Args[0]) // in life it has a machine of its own
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %v %x", floodEnv, kind, target.Addr(), *floodFor, start))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f := &flooder{t: t, lines: make(chan string, 10), stdin: stdin}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(f.lines)
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			f.lines <- scanner.Text()
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-read
		cmd.Wait()
	})
	return f
}

func (f *flooder) says(what string) {
	f.t.Helper()
	if line := receive(f.t, f.lines, "the flood to say "+what); line != what {
		f.t.Fatalf("the flood says %q, not %q", line, what)
	}
}

// flowing says whether the flood has gone on for less than floodFor; it goes on
// after that.
func (f *flooder) flowing() bool {
	select {
	case <-f.lines:
		return false
	default:
		return true
	}
}

// end ends the flood and returns what it says of itself.
func (f *flooder) end() string {
	f.t.Helper()
	f.stdin.Close()
	return receive(f.t, f.lines, "the flood to end")
}

// floodMain is the process that sends, until its standard input ends. It says
// when it flows, when it has done so for a while, and in the end what it was.
func floodMain() {
	s := sending{began: time.Now()}
	var kind string
	var first []byte
	var lasts string
	fmt.Sscanf(os.Getenv(floodEnv), "%s %s %s %x", &kind, &s.addr, &lasts, &first)
	s.first = first
	s.lasts, _ = time.ParseDuration(lasts)
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	switch kind {
	case "nothing":
		s.flows(ctx)
	case "packets":
		s.packets(ctx)
	case "streams":
		s.streams(ctx)
	case "connections", "deaf":
		s.connections(ctx, kind == "deaf")
	}
	took := time.Since(s.began).Seconds()
	fmt.Printf("%.0f MB/s and %.0f connections/s for %.1f s, %d open at one time\n", float64(s.bytes.Load())/took/1e6, float64(s.dialed.Load())/took, took, s.most.Load())
	os.Exit(0)
}

// sending is what a flooder has done.
type sending struct {
	addr  string
	first []byte        // of each packet and stream
	lasts time.Duration // before it says that it is over; it goes on

	bytes, dialed, open, most atomic.Int64
	began                     time.Time
	flowing, over             sync.Once
}

// pace waits until more may be sent at floodRate, and says where the flood is.
func (s *sending) pace(sent int) {
	total := s.bytes.Add(int64(sent))
	s.flowing.Do(func() { fmt.Println("flowing") })
	if time.Since(s.began) > s.lasts {
		s.over.Do(func() { fmt.Println("over") })
	}
	due := time.Duration(float64(total) / floodRate * 1e9)
	time.Sleep(due - time.Since(s.began))
}

// junk returns size bytes that begin with start.
func junk(start []byte, size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	copy(b, start)
	return b
}

// packets sends packets of the size of an Ethernet frame.
func (s *sending) packets(ctx context.Context) {
	conn, err := net.Dial("udp", s.addr)
	if err != nil {
		panic(err)
	}
	packet := junk(s.first, 1400)
	for ctx.Err() == nil {
		for range 50 {
			conn.Write(packet)
		}
		s.pace(50 * len(packet))
	}
}

// streams sends without an end on many connections at a time.
func (s *sending) streams(ctx context.Context) {
	var sending sync.WaitGroup
	for range 64 {
		sending.Go(func() {
			data := junk(s.first, 64<<10)
			for ctx.Err() == nil {
				conn, err := net.Dial("tcp", s.addr)
				if err != nil {
					time.Sleep(time.Millisecond)
					continue
				}
				s.dialed.Add(1)
				for err == nil && ctx.Err() == nil {
					var n int
					conn.SetWriteDeadline(time.Now().Add(time.Second))
					n, err = conn.Write(data)
					s.pace(n)
				}
				conn.Close()
			}
		})
	}
	sending.Wait()
}

// connections keeps many open, from many addresses, that send first and nothing
// more. What the node closes is opened again.
func (s *sending) connections(ctx context.Context, deaf bool) {
	var sending, dialed sync.WaitGroup
	dialed.Add(floodStreams)
	for i := range floodStreams {
		from := &net.TCPAddr{IP: net.IPv4(127, 1, byte(i>>8), byte(i))}
		sending.Go(func() {
			first := true
			for ctx.Err() == nil {
				conn, err := (&net.Dialer{LocalAddr: from, Timeout: time.Second}).DialContext(ctx, "tcp", s.addr)
				if first {
					first = false
					dialed.Done()
				}
				if err != nil {
					continue
				}
				s.dialed.Add(1)
				now := s.open.Add(1)
				for most := s.most.Load(); now > most && !s.most.CompareAndSwap(most, now); most = s.most.Load() {
				}
				conn.Write(s.first)
				stop := context.AfterFunc(ctx, func() { conn.Close() })
				if deaf {
					sleep(ctx, 2*time.Second)
				} else {
					io.Copy(io.Discard, conn) // until it hangs up
				}
				stop()
				conn.Close()
				s.open.Add(-1)
			}
		})
	}
	dialed.Wait()
	s.flows(ctx)
	sending.Wait()
}

// flows says that the flood flows, and when it is over.
func (s *sending) flows(ctx context.Context) {
	fmt.Println("flowing")
	sleep(ctx, s.lasts)
	fmt.Println("over")
	<-ctx.Done()
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
