package highlander_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"highlander"
)

// timeline is what happened in a test, a line each, with the virtual time since
// it began. Lines of one moment stand in the order in which they were written.
type timeline struct {
	mu    sync.Mutex
	start time.Time
	slept time.Duration // in suspend
	lines []string
}

func newTimeline() *timeline { return &timeline{start: time.Now()} }

func (tl *timeline) add(format string, args ...any) {
	tl.mu.Lock()
	defer tl.mu.Unlock()
	line := fmt.Sprintf(format, args...)
	tl.lines = append(tl.lines, fmt.Sprintf("%v %s", time.Since(tl.start), strings.ReplaceAll(line, "highlander: ", "")))
}

// suspend lets the machine sleep: the boot clock goes on, and nothing else does.
func (tl *timeline) suspend(d time.Duration) {
	tl.add("-- the machine sleeps for %v", d)
	tl.mu.Lock()
	defer tl.mu.Unlock()
	tl.slept += d
}

// clock is the boot clock.
func (tl *timeline) clock() time.Duration {
	tl.mu.Lock()
	defer tl.mu.Unlock()
	return time.Since(tl.start) + tl.slept
}

// event adds an event; it is an observer.
func (tl *timeline) event(e highlander.Event) {
	line := e.Kind.String()
	if e.Token != 0 {
		line += fmt.Sprintf(" #%d", e.Token)
	}
	if e.Err != nil {
		line += fmt.Sprintf(": %v", e.Err)
	}
	tl.add("%s", line)
}

func (tl *timeline) text() string {
	tl.mu.Lock()
	defer tl.mu.Unlock()
	return strings.Join(tl.lines, "\n")
}

// mustBe compares the timeline with want, the lines of which may be indented.
func (tl *timeline) mustBe(t *testing.T, want string) {
	t.Helper()
	synctest.Wait()
	var lines []string
	for line := range strings.Lines(want) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	if got, want := tl.text(), strings.Join(lines, "\n"); got != want {
		t.Errorf("this happened:\n%s\n\nwanted:\n%s", got, want)
	}
}

// fakeCluster grants leases when the test says so, and puts what is done with
// them on the timeline. It is for tests that need a hand on every moment of a
// lease; the others use highlandertest.
type fakeCluster struct {
	tl       *timeline
	grants   chan *fakeLease
	closed   chan struct{}
	refuse   error                                                // what Acquire returns at once, if not nil
	onGrant  func(*fakeLease)                                     // called before Acquire returns; may be nil
	release  func(ctx context.Context) error                      // what Release does besides; may be nil
	lookup   func(ctx context.Context) (highlander.Holder, error) // what Lookup does; may be nil
	acquired []highlander.AcquireOptions
	token    uint64

	afterFunc bool // leases have the method AfterFunc
}

func newFakeCluster(tl *timeline) *fakeCluster {
	return &fakeCluster{tl: tl, grants: make(chan *fakeLease), closed: make(chan struct{})}
}

func (c *fakeCluster) Node() string { return "here" }

func (c *fakeCluster) Acquire(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
	c.acquired = append(c.acquired, opts)
	if c.refuse != nil {
		return nil, c.refuse
	}
	select {
	case lease := <-c.grants:
		if c.onGrant != nil {
			c.onGrant(lease)
		}
		if c.afterFunc {
			return leaseWithAfterFunc{lease}, nil
		}
		return lease, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-c.closed:
		return nil, highlander.ErrClosed
	}
}

func (c *fakeCluster) Lookup(ctx context.Context, id string) (highlander.Holder, error) {
	if c.lookup != nil {
		return c.lookup(ctx)
	}
	return highlander.Holder{}, highlander.ErrNotHeld
}

func (c *fakeCluster) Holders(context.Context) ([]highlander.Holder, error) { return nil, nil }

func (c *fakeCluster) Close() error {
	close(c.closed)
	return nil
}

// grant gives the lease to the Acquire that waits and lets things settle. It
// fails the test if nobody waits.
func (c *fakeCluster) grant(t *testing.T) *fakeLease {
	t.Helper()
	synctest.Wait()
	lease := c.tryGrant()
	if lease == nil {
		t.Fatalf("nobody waits for the lease; this happened:\n%s", c.tl.text())
	}
	synctest.Wait()
	return lease
}

// tryGrant gives the lease to the Acquire that waits; nil if none does.
func (c *fakeCluster) tryGrant() *fakeLease {
	lease := &fakeLease{cluster: c, token: c.token + 1}
	lease.life, lease.end = context.WithCancel(context.Background())
	select {
	case c.grants <- lease:
		c.token++
		return lease
	default:
		return nil
	}
}

type fakeLease struct {
	cluster *fakeCluster
	life    context.Context // ends with the lease
	end     context.CancelFunc

	mu      sync.Mutex
	token   uint64
	err     error
	expires time.Duration // on the boot clock; zero: not known
	hangs   chan struct{} // until it is closed, Expires does not answer; may be nil
}

// renew moves the end of the lease to expiresIn from now.
func (l *fakeLease) renew(expiresIn time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expires = l.cluster.tl.clock() + expiresIn
}

// hang makes Expires wait for until.
func (l *fakeLease) hang(until chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hangs = until
}

// lose ends the lease; others may start after expiresIn, if it is not zero.
func (l *fakeLease) lose(err error, expiresIn time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	l.err = err
	if expiresIn != 0 {
		l.expires = l.cluster.tl.clock() + expiresIn
	}
	l.end()
}

func (l *fakeLease) setToken(token uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.token = token
}

func (l *fakeLease) Token() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.token
}

func (l *fakeLease) Done() <-chan struct{} { return l.life.Done() }

func (l *fakeLease) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *fakeLease) Expires() time.Time {
	l.mu.Lock()
	hangs := l.hangs
	l.mu.Unlock()
	if hangs != nil {
		<-hangs
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.expires == 0 {
		return time.Time{}
	}
	return time.Now().Add(l.expires - l.cluster.tl.clock())
}

func (l *fakeLease) Release(ctx context.Context) error {
	l.cluster.tl.add("release called")
	l.lose(highlander.ErrClosed, 0)
	if l.cluster.release != nil {
		return l.cluster.release(ctx)
	}
	return nil
}

// leaseWithAfterFunc is a lease of an engine that spares the Singleton a
// goroutine.
type leaseWithAfterFunc struct{ *fakeLease }

func (l leaseWithAfterFunc) AfterFunc(f func()) (stop func() bool) {
	return context.AfterFunc(l.life, f)
}

// rig is one Singleton that is served on a fakeCluster.
type rig struct {
	*highlander.Singleton
	tl      *timeline
	cluster *fakeCluster
	end     context.CancelFunc // of the context of Serve
	result  chan error
}

// rigUp wraps a child, whose ID may be left out, without serving it.
func rigUp(tl *timeline, spec highlander.ChildSpec, opts ...highlander.Option) *rig {
	r := &rig{tl: tl, cluster: newFakeCluster(tl)}
	if spec.ID == "" {
		spec.ID = "worker"
	}
	opts = append([]highlander.Option{
		highlander.WithLogger(slog.New(slog.DiscardHandler)),
		highlander.WithObserver(tl.event),
	}, opts...)
	r.Singleton = highlander.Wrap(r.cluster, spec, opts...)
	r.SetClock(tl.clock)
	return r
}

// serve is rigUp, and Serve in the background until the test ends it.
func serve(t *testing.T, tl *timeline, spec highlander.ChildSpec, opts ...highlander.Option) *rig {
	r := rigUp(tl, spec, opts...)
	r.start(t)
	return r
}

func (r *rig) start(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	result, served := make(chan error, 1), make(chan struct{})
	r.end, r.result = cancel, result
	go func() {
		defer close(served)
		result <- r.Serve(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-served
	})
	synctest.Wait()
}

// returned is what Serve returned. It fails the test if Serve still runs.
func (r *rig) returned(t *testing.T) error {
	t.Helper()
	synctest.Wait()
	select {
	case err := <-r.result:
		return err
	default:
		t.Fatalf("Serve has not returned; this happened:\n%s", r.tl.text())
		return nil
	}
}

// mustServe fails the test if Serve has returned.
func (r *rig) mustServe(t *testing.T) {
	t.Helper()
	synctest.Wait()
	select {
	case err := <-r.result:
		t.Fatalf("Serve returned %v; this happened:\n%s", err, r.tl.text())
	default:
	}
}

// mustMatch fails the test if err does not match all of targets.
func mustMatch(t *testing.T, err error, targets ...error) {
	t.Helper()
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Errorf("error is %v, want one that matches %v", err, target)
		}
	}
}

// untilTold is a child that runs until it is told to stop, then cleans up for a
// while.
func untilTold(tl *timeline, cleanup time.Duration) highlander.ServiceFunc {
	return func(ctx context.Context) error {
		<-ctx.Done()
		time.Sleep(cleanup)
		tl.add("child returns")
		return nil
	}
}
