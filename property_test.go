package highlander_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"highlander"
)

// TestAnySequence plays random sequences of what can happen to a singleton, at
// different moments and at one, and checks what must hold whatever happens.
func TestAnySequence(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		spec := highlander.ChildSpec{
			ID:          "worker",
			Restart:     rapid.SampledFrom([]highlander.Restart{highlander.Permanent, highlander.Transient, highlander.Temporary}).Draw(rt, "restart"),
			MaxRestarts: rapid.SampledFrom([]int{-1, 1, 2}).Draw(rt, "max restarts"),
		}
		releaseWhenDone := rapid.Bool().Draw(rt, "release when done")
		afterFunc := rapid.Bool().Draw(rt, "leases have AfterFunc")
		moves := rapid.SliceOfN(anyMove, 10, 60).Draw(rt, "moves")
		synctest.Test(t, func(*testing.T) {
			w := newWorld(spec, releaseWhenDone)
			w.cluster.afterFunc = afterFunc
			w.serve()
			for _, m := range moves {
				w.play(m)
			}
			w.finish()
			if len(w.broken) > 0 {
				rt.Errorf("%s\nThis happened:\n%s", strings.Join(w.broken, "\n"), w.tl.text())
			}
		})
	})
}

// move is one thing that happens.
type move struct {
	do     string               // serve, end, grant, lose, child, pass
	err    error                // why the lease is lost, or what the child returns
	time   time.Duration        // to pass, or until the lost lease expires
	at     highlander.EventKind // for end and lose: wait for this event and do it then and there, if not 0
	settle bool                 // let everybody react before the next move
}

func (m move) String() string {
	return fmt.Sprintf("%s %v %v at %v, settle %v", m.do, m.err, m.time, m.at, m.settle)
}

var errPanic = errors.New("panic")

var anyMove = rapid.Custom(func(rt *rapid.T) move {
	m := move{
		do: rapid.SampledFrom([]string{
			"grant", "grant", "grant", "grant", "serve", "serve", "child", "child", "lose", "lose", "pass", "pass", "end",
		}).Draw(rt, "do"),
		settle: rapid.IntRange(0, 3).Draw(rt, "settle") > 0,
	}
	switch m.do {
	case "lose":
		m.err = rapid.SampledFrom([]error{highlander.ErrConflict, highlander.ErrLeaseLost, highlander.ErrClosed}).Draw(rt, "why")
		m.time = rapid.SampledFrom([]time.Duration{0, -time.Second, time.Second, 10 * time.Second}).Draw(rt, "expires in")
	case "child":
		m.err = rapid.SampledFrom([]error{nil, errBoom, errPanic}).Draw(rt, "returns")
	case "pass":
		m.time = rapid.SampledFrom([]time.Duration{time.Second, 5 * time.Second, time.Minute}).Draw(rt, "time")
	}
	if (m.do == "lose" || m.do == "end") && rapid.Bool().Draw(rt, "later") {
		m.at = rapid.SampledFrom([]highlander.EventKind{
			highlander.EventAcquired, highlander.EventStarted, highlander.EventFailed, highlander.EventStopping,
			highlander.EventStopped, highlander.EventDone, highlander.EventGaveUp, highlander.EventLost,
		}).Draw(rt, "at")
	}
	return m
})

// world is one singleton, everything that can happen to it, and the model that
// says what must follow.
type world struct {
	single          *highlander.Singleton
	tl              *timeline
	cluster         *fakeCluster
	intensity       int
	releaseWhenDone bool
	commands        chan error // what the child returns; it heeds nothing else
	result          chan error // nil while Serve does not run

	mu        sync.Mutex
	broken    []string
	end       context.CancelFunc
	ended     time.Time // zero while the context of Serve lives
	endIsSeen bool      // Serve must know
	lease     *fakeLease
	lost      time.Time          // zero while lease is not lost
	lossSeen  bool               // Serve must know
	closed    bool               // a lease of this Serve was lost with ErrClosed
	child     context.Context    // nil unless it runs
	starts    int                // of the child in this Serve
	events    []highlander.Event // of this Serve
	armed     map[highlander.EventKind]move
	exited    bool // in this Serve; here the process goes on after that
}

func newWorld(spec highlander.ChildSpec, releaseWhenDone bool) *world {
	tl := newTimeline()
	w := &world{
		tl:              tl,
		cluster:         newFakeCluster(tl),
		intensity:       max(spec.MaxRestarts, 0),
		releaseWhenDone: releaseWhenDone,
		commands:        make(chan error),
		armed:           map[highlander.EventKind]move{},
	}
	w.cluster.onGrant = w.onGrant
	w.cluster.release = w.onRelease
	spec.Service = highlander.ServiceFunc(w.onStart)
	opts := []highlander.Option{
		highlander.WithLogger(slog.New(slog.DiscardHandler)),
		highlander.WithObserver(w.onEvent),
		highlander.WithExitOnOverrun(),
	}
	if releaseWhenDone {
		opts = append(opts, highlander.WithReleaseWhenDone())
	}
	w.single = highlander.Wrap(w.cluster, spec, opts...)
	w.single.SetExit(w.onExit)
	w.single.SetClock(tl.clock)
	return w
}

// must notes that a rule was broken. w.mu is held.
func (w *world) must(ok bool, rule string, args ...any) {
	if !ok {
		w.broken = append(w.broken, "BROKEN: "+fmt.Sprintf(rule, args...))
	}
}

// play does a move, if it makes sense now.
func (w *world) play(m move) {
	switch {
	case m.at != 0:
		w.mu.Lock()
		w.armed[m.at] = m
		w.mu.Unlock()
	case m.do == "serve":
		w.serve()
	case m.do == "grant":
		w.cluster.tryGrant()
	case m.do == "child":
		select {
		case w.commands <- m.err:
		default:
		}
	case m.do == "pass":
		time.Sleep(m.time)
	default:
		w.mu.Lock()
		w.cut(m)
		w.mu.Unlock()
	}
	if m.settle {
		w.settle()
	}
}

// cut ends the context of Serve or its lease. w.mu is held.
func (w *world) cut(m move) {
	switch {
	case m.do == "end" && w.end != nil && w.ended.IsZero():
		w.tl.add("-- ctx ends")
		w.ended = time.Now()
		w.end()
	case m.do == "lose" && w.lease != nil && w.lease.Err() == nil:
		w.tl.add("-- lease is lost: %v, others may start in %v", m.err, m.time)
		w.lost, w.closed = time.Now(), m.err == highlander.ErrClosed
		w.lease.lose(m.err, m.time)
	}
}

func (w *world) serve() {
	if w.result != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	w.result, w.end, w.ended, w.endIsSeen, w.closed, w.events, w.starts, w.exited = result, cancel, time.Time{}, false, false, nil, 0, false
	w.tl.add("-- Serve")
	go func() { result <- w.single.Serve(ctx) }()
	w.settle()
}

// finish ends Serve, which must be possible in every situation.
func (w *world) finish() {
	w.play(move{do: "end", settle: true})
	w.play(move{do: "child", settle: true})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.must(w.result == nil, "Serve does not return after ctx ended and the child returned")
}

// onStart is the child. It returns when it is told to by the test only.
func (w *world) onStart(ctx context.Context) error {
	w.mu.Lock()
	w.must(w.child == nil, "a child starts while another runs")
	w.child = ctx
	w.starts++
	w.mu.Unlock()

	err := <-w.commands

	w.mu.Lock()
	w.tl.add("-- child returns: %v", err)
	w.child = nil
	switch cause := context.Cause(ctx); cause {
	case nil:
	case highlander.ErrShutdown:
		w.must(!w.ended.IsZero(), "cause is ErrShutdown, but ctx lives")
	case highlander.ErrConflict, highlander.ErrLeaseLost:
		w.must(!w.lost.IsZero(), "cause is %v, but the lease lives", cause)
	default:
		w.must(false, "cause is %v", cause)
	}
	w.mu.Unlock()
	if err == errPanic {
		panic(err)
	}
	return err
}

func (w *world) onGrant(lease *fakeLease) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.must(w.lease == nil, "a lease is acquired before the last one was released")
	w.lease = lease
}

func (w *world) onRelease(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.must(w.child == nil, "the lease is released while the child runs")
	w.lease, w.lost, w.lossSeen = nil, time.Time{}, false
	return nil
}

func (w *world) onExit(int) {
	w.tl.add("exit")
	w.mu.Lock()
	defer w.mu.Unlock()
	w.must(!w.lost.IsZero() && !time.Now().Before(w.deadline()), "exit, but nobody could overlap")
	w.exited = true
}

// deadline is the moment at which a child must have stopped after a loss: so
// long before others may start that the process can exit.
func (w *world) deadline() time.Time {
	if expires := w.lease.Expires(); !expires.IsZero() {
		return expires.Add(-highlander.ExitMargin)
	}
	return w.lost.Add(highlander.DefaultShutdown)
}

// follows says which events may come after which; 0 is the return of Serve.
var follows = map[highlander.EventKind][]highlander.EventKind{
	0:                        {highlander.EventWaiting, 0},
	highlander.EventWaiting:  {highlander.EventAcquired, 0},
	highlander.EventAcquired: {highlander.EventStarted, highlander.EventLost, highlander.EventReleased},
	highlander.EventStarted:  {highlander.EventDone, highlander.EventFailed, highlander.EventStopping, highlander.EventLost},
	highlander.EventFailed:   {highlander.EventStarted, highlander.EventGaveUp, highlander.EventLost, highlander.EventReleased},
	highlander.EventGaveUp:   {highlander.EventLost, highlander.EventReleased},
	highlander.EventDone:     {highlander.EventLost, highlander.EventReleased},
	highlander.EventStopping: {highlander.EventStopped, highlander.EventOverrun, highlander.EventLost},
	highlander.EventOverrun:  {highlander.EventStopped, highlander.EventLost},
	highlander.EventLost:     {highlander.EventStopping, highlander.EventOverrun, highlander.EventStopped, highlander.EventWaiting, 0},
	highlander.EventStopped:  {highlander.EventWaiting, highlander.EventLost, highlander.EventReleased, 0},
	highlander.EventReleased: {0},
}

func (w *world) onEvent(e highlander.Event) {
	w.tl.event(e)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mustFollow(e.Kind)
	w.events = append(w.events, e)
	switch e.Kind {
	case highlander.EventOverrun:
		if e.Err == highlander.ErrShutdown {
			w.must(time.Since(w.ended) == highlander.DefaultShutdown, "overrun %v after ctx ended", time.Since(w.ended))
		} else {
			w.must(!time.Now().Before(w.deadline()), "overrun before the child had to be gone")
		}
	case highlander.EventGaveUp:
		w.must(w.recentFailures() > w.intensity, "gave up after %d failures", w.recentFailures())
	case highlander.EventStarted:
		w.must(!w.lossSeen, "a child was started without a live lease")
		w.must(!w.endIsSeen, "a child was started after ctx ended")
		w.must(w.doneWith() == nil, "a child that is done was started again")
		w.must(w.recentFailures() <= w.intensity, "restarted after %d failures", w.recentFailures())
	case highlander.EventReleased:
		w.must(e.Token != 0, "released without a token")
	}
	if m, ok := w.armed[e.Kind]; ok {
		delete(w.armed, e.Kind)
		w.cut(m)
		w.seen() // by the goroutine of Serve: it must see it from now on
	}
}

// mustFollow checks that an event may come after the last one.
func (w *world) mustFollow(kind highlander.EventKind) {
	last := highlander.EventKind(0)
	if len(w.events) > 0 {
		last = w.events[len(w.events)-1].Kind
	}
	w.must(slices.Contains(follows[last], kind), "event %v follows %v", kind, last)
}

// recentFailures counts those within the restart window.
func (w *world) recentFailures() int {
	n := 0
	for _, e := range w.events {
		if e.Kind == highlander.EventFailed && time.Since(e.Time) <= highlander.DefaultWindow {
			n++
		}
	}
	return n
}

// doneWith returns the event that says that the child is done, nil if it is not.
func (w *world) doneWith() *highlander.Event { return w.find(highlander.EventDone) }

func (w *world) find(kind highlander.EventKind) *highlander.Event {
	for i := range w.events {
		if w.events[i].Kind == kind {
			return &w.events[i]
		}
	}
	return nil
}

// seen notes that Serve must know what has happened so far.
func (w *world) seen() {
	w.endIsSeen = !w.ended.IsZero()
	w.lossSeen = w.lease != nil && w.lease.Err() != nil
}

// settle lets everybody react, then looks at everything.
func (w *world) settle() {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen()
	if w.result == nil {
		return
	}
	select {
	case err := <-w.result:
		w.result = nil
		w.tl.add("-- Serve returns: %v", err)
		w.checkReturn(err)
		return
	default:
	}
	w.checkServing()
}

// checkStarts checks that each start of the child was shown, and that only a
// start that the lease or ctx prevented in the last moment was shown in vain.
func (w *world) checkStarts() {
	shown, interrupted := 0, 0
	for i, e := range w.events {
		if e.Kind != highlander.EventStarted {
			continue
		}
		shown++
		if i+1 < len(w.events) && (w.events[i+1].Kind == highlander.EventLost || w.events[i+1].Kind == highlander.EventStopping) {
			interrupted++
		}
	}
	w.must(w.starts <= shown && shown-w.starts <= interrupted, "%d starts, but %d events that say so, %d of them interrupted", w.starts, shown, interrupted)
}

func (w *world) checkServing() {
	w.checkStarts()
	now := time.Now()
	ends := w.endIsSeen || w.lossSeen
	if w.child == nil {
		mayRun := w.lease != nil && !ends && w.doneWith() == nil
		w.must(!mayRun, "there is a lease, but nobody runs")
		return
	}
	w.must(w.lease != nil, "a child runs without a lease")
	w.must(ends == (w.child.Err() != nil), "must the child stop: %v; was it told: %v", ends, w.child.Err() != nil)
	if w.lossSeen && !now.Before(w.deadline()) {
		w.must(w.exited, "the child outlives its lease, and the process goes on")
	}
	if w.endIsSeen && !w.lossSeen && now.Sub(w.ended) >= highlander.DefaultShutdown {
		w.must(w.find(highlander.EventOverrun) != nil, "the child overstays its time, and nobody says so")
	}
}

func (w *world) checkReturn(err error) {
	w.checkStarts()
	w.mustFollow(0)
	w.must(w.child == nil, "Serve returned before the child")
	w.must(w.lease == nil, "Serve returned without releasing the lease")
	state := w.single.Status().State
	w.must(state == highlander.Idle, "state is %v after Serve", state)
	done, gaveUp := w.doneWith(), w.find(highlander.EventGaveUp)
	switch {
	case gaveUp != nil:
		w.must(errors.Is(err, highlander.ErrTooManyRestarts), "gave up, but returned %v", err)
	case done != nil && w.releaseWhenDone:
		w.must(err == done.Err, "the child ended with %v, but Serve with %v", done.Err, err)
	case errors.Is(err, highlander.ErrClosed):
		w.must(w.closed, "the cluster is not closed")
	default:
		w.must(!w.ended.IsZero() && errors.Is(err, context.Canceled), "Serve returned %v for no reason", err)
	}
}
