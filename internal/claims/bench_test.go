package claims

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// wired is three machines whose messages, in the wire format, arrive at once.
type wired struct {
	b      *testing.B
	nodes  []*Machine
	now    Instant
	ids    []string
	buf    []byte
	states int // sent
}

// newWired returns three machines that see each other; in quorum mode they vote.
func newWired(b *testing.B, ids int, mode Config) *wired {
	w := &wired{b: b, now: simStart}
	for n := range Node(3) {
		mode.Self, mode.Name = n+1, fmt.Sprint("n", n+1)
		w.nodes = append(w.nodes, New(w.now, mode))
	}
	for _, m := range w.nodes {
		for _, o := range w.nodes {
			m.NodeUp(w.now, o.cfg.Self, o.cfg.Name, true)
		}
	}
	w.now = w.now.add(startup(mode.TTL))
	for _, m := range w.nodes {
		m.Advance(w.now)
	}
	for i := range ids {
		w.ids = append(w.ids, fmt.Sprintf("service/%05d", i))
	}
	return w
}

// deliver carries messages, 500 States in each, until there are none.
func (w *wired) deliver() {
	for busy := true; busy; {
		busy = false
		for _, m := range w.nodes {
			for _, n := range m.Outbox(nil) {
				busy = true
				w.now = w.now.add(100 * time.Microsecond)
				w.buf = AppendMessage(w.buf[:0], m.Message(w.now, n, 500))
				msg, err := ParseMessage(w.buf)
				if err != nil {
					w.b.Fatal(err)
				}
				w.states += len(msg.Updates)
				if to := w.node(n); to != nil {
					to.Receive(w.now, msg)
				}
			}
		}
	}
}

func (w *wired) node(n Node) *Machine {
	for _, m := range w.nodes {
		if m.cfg.Self == n {
			return m
		}
	}
	return nil
}

// start has all nodes claim all ids; the first of them holds them in the end.
func (w *wired) start() {
	for _, m := range w.nodes {
		for _, id := range w.ids {
			m.Acquire(w.now, id, "127.0.0.1:8080", 0)
		}
	}
	w.deliver()
	w.expect(w.nodes[0])
}

// takeOver has the first node crash; the second holds all ids then.
func (w *wired) takeOver() {
	gone := w.nodes[0]
	w.nodes = w.nodes[1:]
	for _, m := range w.nodes {
		m.NodeDown(w.now, gone.cfg.Self)
	}
	w.deliver()
	w.expect(w.nodes[0])
}

// kill has the first node die with a proof; the second holds all ids then.
func (w *wired) kill() {
	gone := w.nodes[0]
	w.nodes = w.nodes[1:]
	for _, m := range w.nodes {
		m.Dead(w.now, gone.cfg.Self)
	}
	w.deliver()
	w.expect(w.nodes[0])
}

func (w *wired) expect(holder *Machine) {
	granted := 0
	for _, e := range holder.Events() {
		if e.Kind == Granted {
			granted++
		}
	}
	if granted != len(w.ids) {
		w.b.Fatalf("node %d was granted %d of %d ids", holder.cfg.Self, granted, len(w.ids))
	}
}

const benchIDs = 10_000

// benchModes are both modes; the TTL is the default one of the engine.
var benchModes = map[string]Config{
	"available": {},
	"quorum":    {Quorum: 2, Voters: 3, TTL: 12 * time.Second},
}

// inBothModes runs a benchmark in both modes.
func inBothModes(b *testing.B, run func(b *testing.B, mode Config)) {
	for _, name := range []string{"available", "quorum"} {
		b.Run(name, func(b *testing.B) { run(b, benchModes[name]) })
	}
}

func perID(b *testing.B, w *wired) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*benchIDs), "ns/id")
	b.ReportMetric(float64(w.states)/benchIDs, "states/id")
}

// BenchmarkStart is three nodes that claim 10,000 ids, until one holds them.
func BenchmarkStart(b *testing.B) {
	inBothModes(b, func(b *testing.B, mode Config) {
		b.ReportAllocs()
		var w *wired
		for b.Loop() {
			w = newWired(b, benchIDs, mode)
			w.start()
		}
		perID(b, w)
	})
}

// BenchmarkTakeOver is the end of the holder of 10,000 ids, until another holds
// them: in available mode it has left the view, in quorum mode its death is proved.
func BenchmarkTakeOver(b *testing.B) {
	inBothModes(b, func(b *testing.B, mode Config) {
		b.ReportAllocs()
		var w *wired
		for b.Loop() {
			b.StopTimer()
			w = newWired(b, benchIDs, mode)
			w.start()
			w.states = 0
			b.StartTimer()
			if mode.Quorum > 0 {
				w.kill()
			} else {
				w.takeOver()
			}
		}
		perID(b, w)
	})
}

// BenchmarkIdleTick is a second in the life of three nodes when 10,000 ids are held
// and nothing happens, but in quorum mode the leases are renewed.
func BenchmarkIdleTick(b *testing.B) {
	inBothModes(b, func(b *testing.B, mode Config) {
		w := newWired(b, benchIDs, mode)
		w.start()
		for _, m := range w.nodes {
			m.Tick(w.now)
		}
		w.deliver()
		w.states = 0
		b.ReportAllocs()
		for b.Loop() {
			w.now = w.now.add(time.Second)
			for _, m := range w.nodes {
				m.Tick(w.now)
			}
			w.deliver()
		}
		if events := w.nodes[0].Events(); w.states != 0 || len(events) != 0 {
			b.Fatalf("%d States were sent, %d things happened", w.states, len(events))
		}
	})
}

// BenchmarkMemory is what three nodes keep of 10,000 ids.
func BenchmarkMemory(b *testing.B) {
	inBothModes(b, func(b *testing.B, mode Config) {
		var before, after runtime.MemStats
		for b.Loop() {
			runtime.GC()
			runtime.ReadMemStats(&before)
			w := newWired(b, benchIDs, mode)
			w.start()
			runtime.GC()
			runtime.ReadMemStats(&after)
			runtime.KeepAlive(w)
		}
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(3*benchIDs), "B/id/node")
		b.ReportMetric(0, "ns/op")
	})
}
