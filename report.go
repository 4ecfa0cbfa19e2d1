package highlander

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"time"
)

// logLines says how each event is logged. An overrun is logged by overrun.
var logLines = map[EventKind]struct {
	level slog.Level
	text  string
	err   string // the key of Event.Err
}{
	EventWaiting:  {slog.LevelInfo, "waiting for the lease", "error"},
	EventAcquired: {slog.LevelInfo, "lease acquired", "error"},
	EventStarted:  {slog.LevelInfo, "child started", "error"},
	EventFailed:   {slog.LevelWarn, "child failed", "error"},
	EventStopping: {slog.LevelInfo, "telling the child to stop", "cause"},
	EventStopped:  {slog.LevelInfo, "child stopped", "error"},
	EventLost:     {slog.LevelWarn, "lease lost", "cause"},
	EventDone:     {slog.LevelInfo, "child is done and will not run again", "error"},
	EventGaveUp:   {slog.LevelError, "child failed too often, giving up the lease", "error"},
	EventReleased: {slog.LevelInfo, "lease released", "error"},
}

// emit logs an event and shows it to the observer.
func (l *life) emit(kind EventKind, err error) {
	event := Event{Time: time.Now(), Kind: kind, ID: l.spec.ID, Node: l.node, Err: err}
	var attrs []slog.Attr
	if l.held != nil {
		event.Token = l.held.lease.Token()
		attrs = append(attrs, slog.Uint64("token", event.Token))
	}
	if line, ok := logLines[kind]; ok {
		if err != nil {
			attrs = append(attrs, slog.Any(line.err, err))
		}
		var panicked *PanicError
		if kind == EventFailed && errors.As(err, &panicked) {
			attrs = append(attrs, slog.String("stack", string(panicked.Stack)))
		}
		l.log.LogAttrs(context.Background(), line.level, line.text, attrs...)
	}
	l.observe(event)
}

// observe calls the observer. Its panics must not keep the child from being
// stopped or the lease from being released.
func (l *life) observe(event Event) {
	if l.options.observer == nil {
		return
	}
	defer func() {
		if value := recover(); value != nil {
			l.log.Error("observer panicked", "event", event.Kind.String(), "panic", value, "stack", string(debug.Stack()))
		}
	}()
	l.options.observer(event)
}

// overrun reports a child that is still running when its time to stop is up.
// If the lease is lost as well, the process exits, if it was asked to; else
// another node may have started.
func (l *life) overrun(cause error, first bool) {
	exit := cause != ErrShutdown && l.options.exitOnOverrun
	attrs := []any{"cause", cause, "token", l.held.lease.Token()}
	switch {
	case cause == ErrShutdown:
		l.log.Warn("child is still running after its time to stop; the lease is kept until it returns",
			"shutdown", l.spec.Shutdown, "token", l.held.lease.Token())
	case exit:
		l.log.Error("child is still running when its lease ends; ending the process", attrs...)
	default:
		l.log.Error("child is still running though its lease has ended; another node may be running it too", attrs...)
	}
	if !first {
		return
	}
	l.emit(EventOverrun, cause)
	if exit {
		l.exitOnce()
	}
}
