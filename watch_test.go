package highlander

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// endedLease is a lease that was lost.
type endedLease struct{ done chan struct{} }

func newEndedLease() endedLease {
	l := endedLease{done: make(chan struct{})}
	close(l.done)
	return l
}

func (l endedLease) Token() uint64                 { return 1 }
func (l endedLease) Done() <-chan struct{}         { return l.done }
func (l endedLease) Err() error                    { return ErrConflict }
func (l endedLease) Expires() time.Time            { return time.Time{} }
func (l endedLease) Release(context.Context) error { return nil }

// lifeWithLostLease is a life whose child is ready to run, just when the lease
// is lost.
func lifeWithLostLease(restart Restart, child ServiceFunc) *life {
	s := Wrap(nil, ChildSpec{ID: "x", Service: child, Restart: restart}, WithLogger(slog.New(slog.DiscardHandler)))
	l := newLife(context.Background(), s)
	l.held = &held{lease: newEndedLease()}
	l.child = newChildRun(context.Background())
	return l
}

// It was done before it was told to stop, so it has run, though the lease was
// lost before anybody looked.
func TestChildThatIsDoneAtTheMomentOfTheLossHasRun(t *testing.T) {
	l := lifeWithLostLease(Transient, func(context.Context) error { return nil })
	l.child.serve(l.spec.Service)
	l.turning()
	if l.finished == nil {
		t.Error("the child has run to its end, and is not taken for done")
	}
}

func TestChildIsNotCalledWhenTheLeaseIsLostInTheLastMoment(t *testing.T) {
	for _, restart := range []Restart{Permanent, Transient, Temporary} {
		l := lifeWithLostLease(restart, func(context.Context) error {
			t.Errorf("the %v child was called", restart)
			return nil
		})
		if l.running(); l.finished != nil {
			t.Errorf("the %v child is taken for done, though it was not called", restart)
		}
	}
}

// A panic while the watch leads, as of a log handler, goes on in the goroutine
// of Serve, where somebody may recover it.
func TestPanicOfTheWatchReachesServe(t *testing.T) {
	l := lifeWithLostLease(Permanent, nil)
	l.log = slog.New(panickingHandler{slog.DiscardHandler})
	defer func() {
		if got := recover(); got != "log" {
			t.Errorf("recovered %v, want the panic of the log handler", got)
		}
	}()
	w := watchOver(l)
	l.child.serve(ServiceFunc(func(ctx context.Context) error {
		<-ctx.Done()
		return nil
	}))
	w.end()
	t.Error("there was no panic")
}

// The observer ends the goroutine of the watch, as t.FailNow does, when no child
// is left to be stopped: that of Serve ends with it, and takes no further step.
func TestEndOfTheWatchEndsServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := lifeWithLostLease(Temporary, func(context.Context) error { return nil })
		l.options.observer = func(Event) { runtime.Goexit() }
		l.child.serve(l.spec.Service)
		w := watchOver(l)
		synctest.Wait()
		var serve sync.WaitGroup
		serve.Go(func() {
			next := w.end()
			t.Errorf("the goroutine of Serve goes on, with a next step: %v", next != nil)
		})
		serve.Wait()
	})
}

type panickingHandler struct{ slog.Handler }

func (panickingHandler) Enabled(context.Context, slog.Level) bool  { return true }
func (panickingHandler) Handle(context.Context, slog.Record) error { panic("log") }
