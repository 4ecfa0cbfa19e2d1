package gossip

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"highlander/internal/boottime"
	"highlander/internal/claims"
	leases "highlander/internal/lease"
)

func TestDroppedIsLoggedAtMostOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		d := &dropLog{log: slog.New(slog.NewTextHandler(&text, nil))}
		for range 35 {
			for range 100 {
				d.count("garbage")
			}
			time.Sleep(100 * time.Millisecond) // virtual
		}
		if got := d.total(); got != 3500 {
			t.Errorf("counted %d, want 3500", got)
		}
		if lines := strings.Count(text.String(), "\n"); lines != 4 {
			t.Errorf("%d lines in 3.5 s, want 4:\n%s", lines, text.String())
		}
	})
}

func TestWindowTakesEachNumberOnce(t *testing.T) {
	var w replayWindow
	for _, test := range []struct {
		number uint64
		first  bool
	}{
		{1, true}, {1, false}, {3, true}, {2, true}, {2, false}, {3, false},
		{66, true}, {3, false}, {4, true}, {66, false}, // 66-63
		{2, false}, {1, false}, {0, false},
		{1000, true}, {66, false}, {937, true}, {936, false}, {1000, false},
	} {
		if got := w.first(test.number); got != test.first {
			t.Errorf("first(%d) is %v, want %v", test.number, got, test.first)
		}
	}
}

// FuzzQuestion: the tripwire says yes to its own name, no to all others, and
// nothing to half a question.
func FuzzQuestion(f *testing.F) {
	const label, self = "highlander", "n#0000000000000001"
	f.Add(question(label, self)[1:])
	f.Add(question(label, "other")[1:])
	f.Add(question("green", self)[1:])
	f.Add(append(question(label, self)[1:], "more"...))
	f.Add([]byte{255, 255, 1})
	f.Add([]byte{})
	w := &tripwire{label: label, self: self}
	right := question(label, self)[1:]
	f.Fuzz(func(t *testing.T, data []byte) {
		here, there := net.Pipe()
		served := make(chan struct{})
		go func() {
			w.serve(there, func() error { return nil })
			close(served)
		}()
		go func() {
			here.Write(data) // blocks when more is sent than is read
			if whole := len(data) >= 2 && len(data) >= 2+int(data[0])+int(data[1]); !whole {
				here.Close()
			}
		}()
		var answer [1]byte
		n, _ := io.ReadFull(here, answer[:])
		here.Close()
		<-served
		switch whole := len(data) >= 2 && len(data) >= 2+int(data[0])+int(data[1]); {
		case !whole && n != 0:
			t.Errorf("half a question is answered with %q", answer)
		case whole && bytes.HasPrefix(data, right) != (answer[0] == tripwireYes):
			t.Errorf("%q is answered with %q", data, answer)
		}
	})
}

// Keys change on a ring that others read: what is in the old list and in the new
// one decrypts at all times, if it was not behind a key that goes.
func TestKeysChangeUnderReaders(t *testing.T) {
	key := func(i byte) []byte { return bytes.Repeat([]byte{i}, 16) }
	a, b, c := key(1), key(2), key(3)
	ring, _ := memberlist.NewKeyring([][]byte{a}, a)
	stop := make(chan struct{})
	var reading sync.WaitGroup
	for range 2 {
		reading.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if first := ring.GetPrimaryKey(); len(first) != 16 || first[0] != first[15] {
					t.Errorf("the first key is %x", first)
				}
				for _, key := range ring.GetKeys() {
					if len(key) != 16 || key[0] != key[15] {
						t.Errorf("there is a key %x", key)
					}
				}
			}
		})
	}
	for range 1000 {
		for _, list := range [][][]byte{{a, b}, {b, a}, {b}, {b, c}, {c, b}, {c}, {a, b, c}, {a, c}, {a, c, b}, {a}} {
			setKeys(ring, list)
			got := slices.Clone(ring.GetKeys())
			if !bytes.Equal(got[0], list[0]) || len(got) != len(list) {
				t.Fatalf("the ring is %x, not %x", got, list)
			}
			slices.SortFunc(got, bytes.Compare)
			want := slices.SortedFunc(slices.Values(list), bytes.Compare)
			if !slices.EqualFunc(got, want, bytes.Equal) {
				t.Fatalf("the ring is %x, not %x", got, list)
			}
		}
	}
	close(stop)
	reading.Wait()
}

// The process stands still in the turn in which a lease is granted, until it has
// run out: nobody must hear of a lease without an end.
func TestLeaseThatRunsOutAsItIsGrantedIsNotHandedOut(t *testing.T) {
	var jump atomic.Int64
	c, err := Join(t.Context(), Config{Name: "a", Bind: "127.0.0.1:0", Quorum: 1, Expect: 1, TTL: time.Second,
		up: func() time.Duration { return boottime.Now() + time.Duration(jump.Load()) }})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	jump.Add(int64(2 * time.Second)) // it votes
	a := c.agent
	l := &lease{agent: a, id: "id", granted: make(chan struct{}), ending: leases.NewEnding()}
	var first claims.Claim
	a.mu.Lock()
	a.posted = append(a.posted, func(now claims.Instant) {
		a.claim(now, l)
		first = l.claim
		jump.Add(int64(2 * time.Second))
	}, func(claims.Instant) {
		if l.claim == first || l.phase == leaseEnded {
			t.Errorf("the lease is in phase %d with claim %v; want another claim than %v, which has run out", l.phase, l.claim, first)
		}
	})
	a.mu.Unlock()
	a.wake <- struct{}{}
	<-l.granted
	if l.Expires().IsZero() {
		t.Error("a lease in quorum mode has no end")
	}
}

// In quorum mode a node that has left may hold something for a while yet.
func TestHolderIsNamedAfterItHasLeft(t *testing.T) {
	c, err := Join(t.Context(), Config{Name: "a", Bind: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a := c.agent
	a.do(func(claims.Instant) {
		a.meet(2, "b#0000000000000002", [32]byte{})
		for node, want := range map[claims.Node]string{a.self: c.name, 2: "b#0000000000000002", 3: "unknown#0000000000000003"} {
			if got := a.publicHolder(claims.Holder{Claim: claims.Claim{Node: node}}).Node; got != want {
				t.Errorf("what node %d holds is held by %s, want %s", node, got, want)
			}
		}
	})
}
