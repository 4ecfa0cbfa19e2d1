package highlandertest

import (
	"context"
	"errors"
	"fmt"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"highlander"
	"highlander/internal/pulse"
)

// script is one check at work: the cluster, and what has to be cleaned up when
// it is over. Its methods are called from the goroutine of the test and end it
// when a step fails.
type script struct {
	t       *testing.T
	fixture Fixture
	nodes   []highlander.Cluster // a, b, c
	referee *referee
	pulse   *pulse.Pulse // how late everything is

	shared  bool                 // the nodes belong to another script
	running []highlander.Cluster // nodes that were neither closed nor crashed
	waiters []*waiter
}

// newScript starts a script without nodes.
func newScript(t *testing.T, f Fixture) *script {
	s := &script{t: t, fixture: f, referee: newReferee()}
	t.Cleanup(s.cleanup)
	return s
}

// sub starts a script on the nodes of s.
func (s *script) sub(t *testing.T) *script {
	sub := newScript(t, s.fixture)
	sub.shared = true
	sub.nodes = s.nodes
	sub.pulse = s.pulse
	sub.running = s.running
	return sub
}

// cleanup ends what the check has left: waits, then leases, then nodes.
func (s *script) cleanup() {
	for _, w := range s.waiters {
		w.cancel(errCleanup)
	}
	for _, w := range s.waiters {
		s.receive(w.done, "%v returns after the end of its context", w)
	}
	for _, l := range s.referee.out(nil) {
		s.release(l)
	}
	if s.shared {
		return
	}
	for _, node := range slices.Clone(s.running) {
		s.close(node)
	}
}

var errCleanup = errors.New("the check is over")

// open opens a node, which is closed in the end.
func (s *script) open(name string) highlander.Cluster {
	s.t.Helper()
	node := s.fixture.Node(s.t, name)
	s.running = append(s.running, node)
	return node
}

// close closes a node.
func (s *script) close(node highlander.Cluster) {
	s.t.Helper()
	s.gone(node)
	s.must(s.do(node.Node()+".Close", func(context.Context) error { return node.Close() }))
}

// needsCrash skips the check if nodes cannot be crashed.
func (s *script) needsCrash() {
	s.t.Helper()
	if s.fixture.Crash == nil {
		s.t.Skip("Fixture.Crash is nil: there is no way to crash a node of this engine")
	}
}

// needsCut skips the check if nodes cannot be cut off.
func (s *script) needsCut() {
	s.t.Helper()
	if s.fixture.Cut == nil {
		s.t.Skip("Fixture.Cut is nil: there is no way to cut off a node of this engine")
	}
}

// crash crashes a node, which is then not closed any more.
func (s *script) crash(node highlander.Cluster) {
	s.t.Helper()
	s.gone(node)
	s.fixture.Crash(s.t, node)
}

// gone takes a node and its leases for ended: others may have them from now on.
func (s *script) gone(node highlander.Cluster) {
	s.running = slices.DeleteFunc(slices.Clone(s.running), func(n highlander.Cluster) bool { return n == node })
	for _, l := range s.referee.out(node) {
		s.referee.leave(l)
	}
}

// id returns an id that no other check uses.
func (s *script) id(name string) string {
	check := s.t.Name()
	return check[strings.LastIndex(check, "/")+1:] + "." + name
}

// acquire acquires a lease that is free, or about to be.
func (s *script) acquire(node highlander.Cluster, id string) *lease {
	s.t.Helper()
	return s.acquireWith(node, id, highlander.AcquireOptions{})
}

func (s *script) acquireWith(node highlander.Cluster, id string, opts highlander.AcquireOptions) *lease {
	s.t.Helper()
	return s.startWith(node, id, opts).lease()
}

// release releases a lease.
func (s *script) release(l *lease) {
	s.t.Helper()
	s.referee.leave(l)
	s.must(s.do("Release of the "+l.String(), l.Release))
}

// waiter is a call of Acquire in a goroutine of its own.
type waiter struct {
	s      *script
	node   highlander.Cluster
	id     string
	cancel context.CancelCauseFunc

	done chan struct{} // closed when Acquire has returned with ...
	got  *lease
	err  error
	at   time.Time // when it has returned
}

func (w *waiter) String() string { return fmt.Sprintf("%s.Acquire(%q)", w.node.Node(), w.id) }

// start makes node acquire id.
func (s *script) start(node highlander.Cluster, id string) *waiter {
	return s.startWith(node, id, highlander.AcquireOptions{})
}

func (s *script) startWith(node highlander.Cluster, id string, opts highlander.AcquireOptions) *waiter {
	ctx, cancel := context.WithCancelCause(context.Background())
	w := &waiter{s: s, node: node, id: id, cancel: cancel, done: make(chan struct{})}
	s.waiters = append(s.waiters, w)
	go func() {
		defer close(w.done)
		w.got, w.err = s.acquireNow(ctx, node, id, opts)
		w.at = time.Now()
	}()
	return w
}

// acquireNow is Acquire under the eyes of the referee, from any goroutine.
func (s *script) acquireNow(ctx context.Context, node highlander.Cluster, id string, opts highlander.AcquireOptions) (*lease, error) {
	inner, err := node.Acquire(ctx, id, opts)
	if err != nil {
		return nil, err
	}
	l := &lease{inner, id, node}
	if err := s.referee.enter(l); err != nil {
		s.t.Error(err)
	}
	return l, nil
}

// lease waits until the waiter holds.
func (w *waiter) lease() *lease {
	w.s.t.Helper()
	w.s.receive(w.done, "%v returns the lease", w)
	if w.err != nil {
		w.s.t.Fatalf("%v: %v", w, w.err)
	}
	return w.got
}

// failure waits until the waiter has failed.
func (w *waiter) failure() error {
	w.s.t.Helper()
	w.s.receive(w.done, "%v returns an error", w)
	if w.err == nil {
		w.s.t.Fatalf("%v: got the %v, want an error", w, w.got)
	}
	return w.err
}

// stillWaits checks that the waiter has nothing yet.
func (w *waiter) stillWaits() {
	w.s.t.Helper()
	select {
	case <-w.done:
		w.s.t.Fatalf("%v has returned (%v, %v), want it to wait", w, w.got, w.err)
	default:
	}
}

// queued waits until count calls of Acquire stand in the queue of id or, where
// that cannot be asked, until the nodes have had the time to queue them.
func (s *script) queued(id string, count int) {
	s.t.Helper()
	if s.fixture.Waiting == nil {
		s.traffic()
		return
	}
	s.eventually(fmt.Sprintf("%d wait for %q", count, id), func() error {
		if got := s.fixture.Waiting(s.t, id); got != count {
			return fmt.Errorf("%d wait", got)
		}
		return nil
	})
}

// traffic hands another id round, so that whatever was under way between the
// nodes has had its chance: a clock made of messages.
func (s *script) traffic() {
	s.t.Helper()
	for range 3 {
		for _, node := range s.running {
			s.release(s.acquire(node, s.id("traffic")))
		}
	}
}

// staysHeld checks that a lease outlasts some traffic.
func (s *script) staysHeld(l *lease) {
	s.t.Helper()
	s.traffic()
	s.isHeld(l)
}

// isHeld checks that a lease is held now.
func (s *script) isHeld(l *lease) {
	s.t.Helper()
	select {
	case <-l.Done():
		s.t.Fatalf("%v: Done is closed (Err: %v), want it held", l, l.Err())
	default:
	}
	if err := l.Err(); err != nil {
		s.t.Fatalf("%v: Err is %v, want nil while it is held", l, err)
	}
}

// isClosed checks that a lease is done with ErrClosed, soon.
func (s *script) isClosed(l *lease) {
	s.t.Helper()
	s.receive(l.Done(), "Done of the %v is closed", l)
	if err := l.Err(); !errors.Is(err, highlander.ErrClosed) {
		s.t.Fatalf("%v: Err is %v, want ErrClosed", l, err)
	}
}

// lookup asks a node for a holder.
func (s *script) lookup(viewer highlander.Cluster, id string) (h highlander.Holder, err error) {
	s.t.Helper()
	err = s.do(fmt.Sprintf("%s.Lookup(%q)", viewer.Node(), id), func(ctx context.Context) error {
		var err error
		h, err = viewer.Lookup(ctx, id)
		return err
	})
	return h, err
}

// holders asks a node for all holders.
func (s *script) holders(viewer highlander.Cluster) (all []highlander.Holder, err error) {
	s.t.Helper()
	err = s.do(viewer.Node()+".Holders", func(ctx context.Context) error {
		var err error
		all, err = viewer.Holders(ctx)
		return err
	})
	return all, err
}

// seeHolder waits until each viewer sees node as the holder of id, and returns
// what the last one sees.
func (s *script) seeHolder(id string, node highlander.Cluster, viewers ...highlander.Cluster) (seen highlander.Holder) {
	s.t.Helper()
	for _, viewer := range viewers {
		s.eventually(fmt.Sprintf("%s sees that %s holds %q", viewer.Node(), node.Node(), id), func() (err error) {
			seen, err = s.lookup(viewer, id)
			if err == nil && seen.Node != node.Node() {
				err = fmt.Errorf("it sees %+v", seen)
			}
			return err
		})
	}
	return seen
}

// seeNobody waits until no running node sees a holder of id.
func (s *script) seeNobody(id string) {
	s.t.Helper()
	for _, viewer := range s.running {
		s.eventually(fmt.Sprintf("%s sees that nobody holds %q", viewer.Node(), id), func() error {
			seen, err := s.lookup(viewer, id)
			if errors.Is(err, highlander.ErrNotHeld) {
				return nil
			}
			return fmt.Errorf("it sees %+v (error: %w), want ErrNotHeld", seen, err)
		})
	}
}

// must ends the check if a step failed.
func (s *script) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// do calls f, which must return within the patience of the suite, and at the
// latest when its context ends.
func (s *script) do(what string, f func(ctx context.Context) error) error {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	result := make(chan error, 1)
	go func() { result <- f(ctx) }()
	select {
	case err := <-result:
		if err != nil && ctx.Err() != nil {
			s.stuck("%s did not come to an end: %v", what, err)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	case <-time.After(patience + patience/2):
		s.stuck("%s did not return, though its context ended", what)
		return nil
	}
}

// receive waits until a channel is closed.
func (s *script) receive(c <-chan struct{}, format string, args ...any) {
	s.t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		s.stuck("waited in vain: "+format, args...)
	}
}

// eventually calls f again and again until it returns nil.
func (s *script) eventually(what string, f func() error) {
	s.t.Helper()
	end := time.Now().Add(patience)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		wrong := f()
		if wrong == nil {
			return
		}
		if time.Now().After(end) {
			s.stuck("waited in vain: %s: %v", what, wrong)
		}
		time.Sleep(pause)
	}
}

// stuck ends the check and shows what every goroutine is doing.
func (s *script) stuck(format string, args ...any) {
	s.t.Helper()
	const enough = 32 << 10
	var dump strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&dump, 1) // a Builder takes it all
	stacks := dump.String()
	if len(stacks) > enough {
		stacks = stacks[:enough] + "... (cut)"
	}
	s.t.Fatalf("%s (patience is %v)\n\n%s", fmt.Sprintf(format, args...), patience, stacks)
}

// firstOf waits until one of several waiters has returned with a lease.
func (s *script) firstOf(waiters []*waiter) *waiter {
	s.t.Helper()
	var first *waiter
	s.eventually(fmt.Sprintf("one of %v gets the lease", waiters), func() error {
		for _, w := range waiters {
			select {
			case <-w.done:
				first = w
				return nil
			default:
			}
		}
		return errors.New("all wait")
	})
	first.lease()
	return first
}

// together calls f n times at once, from goroutines of their own, and waits.
func (s *script) together(what string, n int, f func(ctx context.Context, i int) error) {
	s.t.Helper()
	s.must(s.do(what, func(ctx context.Context) error {
		errs := make([]error, n)
		var group sync.WaitGroup
		for i := range n {
			group.Go(func() { errs[i] = f(ctx, i) })
		}
		group.Wait()
		return errors.Join(errs...)
	}))
}
