package lease_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"highlander"
	"highlander/internal/lease"
)

// world is a book in virtual time, whose clock can jump ahead of the timers, as
// it does on a machine that was suspended.
type world struct {
	*testing.T
	*lease.Book
	start time.Time
	log   bytes.Buffer

	mu      sync.Mutex
	slept   time.Duration
	blocked chan struct{} // not nil: the log blocks until it is closed
}

// inWorld runs a test in virtual time. The book is closed in the end, after
// which the bubble looks for goroutines that are left.
func inWorld(t *testing.T, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, start: time.Now()}
		w.Book = lease.NewBook(w.now, slog.New(slog.NewTextHandler(w, nil)))
		defer w.Close()
		test(w)
	})
}

func (w *world) now() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Since(w.start) + w.slept
}

// Write is where the log goes.
func (w *world) Write(line []byte) (int, error) {
	w.mu.Lock()
	blocked := w.blocked
	w.mu.Unlock()
	if blocked != nil {
		<-blocked
	}
	return w.log.Write(line)
}

func (w *world) blockLog(until chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.blocked = until
}

// suspend lets time pass that no timer sees.
func (w *world) suspend(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slept += d
}

// pass lets time pass that timers see.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// grant grants a lease that runs out after d, to a child that needs stop.
func (w *world) grant(d, stop time.Duration) (*lease.Lease, *server) {
	s := &server{answer: make(chan error, 1)}
	s.answer <- nil
	return w.Grant(lease.Grant{ID: "id", Token: 7, StopWithin: stop, Until: w.now() + d, Release: s.release, End: s.end}), s
}

// server counts what becomes of a lease.
type server struct {
	mu           sync.Mutex
	calls, ended int
	ctx          context.Context
	answer       chan error
}

func (s *server) release(ctx context.Context) error {
	s.mu.Lock()
	s.calls, s.ctx = s.calls+1, ctx
	s.mu.Unlock()
	return <-s.answer
}

func (s *server) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended++
}

func (s *server) saw() (calls, ended int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls, s.ended
}

// held checks that a lease is held.
func (w *world) held(l *lease.Lease) {
	w.Helper()
	select {
	case <-l.Done():
		w.Fatalf("after %v Done is closed (Err: %v), want it held", w.now(), l.Err())
	default:
	}
	if l.Err() != nil {
		w.Fatalf("Err is %v while the lease is held", l.Err())
	}
}

// done checks that Done is closed for a reason.
func (w *world) done(l *lease.Lease, why error) {
	w.Helper()
	select {
	case <-l.Done():
	default:
		w.Fatalf("after %v Done is open, want it closed", w.now())
	}
	if !errors.Is(l.Err(), why) {
		w.Fatalf("Err is %v, want %v", l.Err(), why)
	}
}

// expect checks how often the engine's Release was called, and End.
func (w *world) expect(s *server, calls, ended int) {
	w.Helper()
	if c, e := s.saw(); c != calls || e != ended {
		w.Fatalf("after %v Release was called %d times and End %d times, want %d and %d", w.now(), c, e, calls, ended)
	}
}

// expires checks how far away Expires is.
func (w *world) expires(l *lease.Lease, in time.Duration) {
	w.Helper()
	if left := time.Until(l.Expires()); left != in {
		w.Fatalf("Expires is in %v, want %v", left, in)
	}
}

func (w *world) logged(text string) {
	w.Helper()
	if !strings.Contains(w.log.String(), text) {
		w.Errorf("the log is %q, want %q in it", w.log.String(), text)
	}
}

// goroutines counts those of the book.
func goroutines() int {
	buf := make([]byte, 1<<20)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), "(*Book).look(")
}

var _ interface {
	highlander.Lease
	AfterFunc(func()) func() bool
} = (*lease.Lease)(nil)
