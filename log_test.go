package highlander_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"highlander"
)

// levels is a log handler that puts level and text on a timeline.
type levels struct {
	tl  *timeline
	min slog.Level
}

func (h *levels) warnings() *slog.Logger { return slog.New(&levels{tl: h.tl, min: slog.LevelWarn}) }

func (h *levels) Enabled(_ context.Context, level slog.Level) bool { return level >= h.min }
func (h *levels) WithAttrs([]slog.Attr) slog.Handler               { return h }
func (h *levels) WithGroup(string) slog.Handler                    { return h }

func (h *levels) Handle(_ context.Context, r slog.Record) error {
	h.tl.add("log %v %s", r.Level, r.Message)
	return nil
}

// textLogger logs without times.
func textLogger(w *bytes.Buffer, level slog.Level) highlander.Option {
	return highlander.WithLogger(slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "stack" && a.Value.String() != "" {
				return slog.Attr{}
			}
			return a
		},
	})))
}

// The id in use is logged at debug level at start, as the original does.
func TestIDIsInTheDebugLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := serve(t, newTimeline(), highlander.ChildSpec{ID: "report", Service: untilTold(nil, 0)}, textLogger(&log, slog.LevelDebug))
		r.end()
		r.returned(t)
		want := `level=DEBUG msg="singleton starts; its id is the uniqueness key" id=report node=here`
		if got, _, _ := strings.Cut(log.String(), "\n"); got != want {
			t.Errorf("log begins with\n%s\nwant\n%s", got, want)
		}
	})
}

func TestInfoLogTellsTheStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		failures := make(chan any)
		child := func(ctx context.Context) error {
			select {
			case failure := <-failures:
				panic(failure)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		r := serve(t, newTimeline(), highlander.ChildSpec{Service: highlander.ServiceFunc(child), MaxRestarts: 1}, textLogger(&log, slog.LevelInfo))
		r.cluster.grant(t).lose(highlander.ErrConflict, 0)
		r.cluster.grant(t)
		failures <- errors.New("boom")
		failures <- errors.New("bang")
		mustMatch(t, r.returned(t), highlander.ErrTooManyRestarts)
		want := `
level=INFO msg="waiting for the lease" id=worker node=here
level=INFO msg="lease acquired" id=worker node=here token=1
level=INFO msg="child started" id=worker node=here token=1
level=WARN msg="lease lost" id=worker node=here token=1 cause="highlander: another node holds the id"
level=INFO msg="telling the child to stop" id=worker node=here token=1 cause="highlander: another node holds the id"
level=INFO msg="child stopped" id=worker node=here token=1 error="context canceled"
level=INFO msg="waiting for the lease" id=worker node=here
level=INFO msg="lease acquired" id=worker node=here token=2
level=INFO msg="child started" id=worker node=here token=2
level=WARN msg="child failed" id=worker node=here token=2 error="panic: boom"
level=INFO msg="child started" id=worker node=here token=2
level=WARN msg="child failed" id=worker node=here token=2 error="panic: bang"
level=ERROR msg="child failed too often, giving up the lease" id=worker node=here token=2 error="highlander: too many restarts of child \"worker\": more than 1 within 5s; the last failure: panic: bang"
level=INFO msg="lease released" id=worker node=here token=2
`
		if got := "\n" + log.String(); got != want {
			t.Errorf("the log is%s\nwant%s", got, want)
		}
	})
}

func TestStackOfAPanicIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := serve(t, newTimeline(), highlander.ChildSpec{Service: highlander.ServiceFunc(panics), MaxRestarts: -1},
			highlander.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		r.cluster.grant(t)
		r.returned(t)
		if !strings.Contains(log.String(), "highlander_test.panics") {
			t.Errorf("the log does not show where the child panicked:\n%s", log.String())
		}
	})
}

func panics(context.Context) error { panic("boom") }
