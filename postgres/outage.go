package postgres

import (
	"errors"
	"log/slog"
	"strings"
	"time"

	"highlander/internal/retry"
)

const (
	firstPause   = 20 * time.Millisecond
	longestPause = 2 * time.Second
)

// outage is the time without a session: how often to try, and what to log.
type outage struct {
	began time.Time
	pause time.Duration
	last  string
}

// next notes a failure and returns how long to wait before the next attempt.
func (o *outage) next(log *slog.Logger, err error) time.Duration {
	first := o.began.IsZero()
	if first {
		o.began, o.pause, o.last = time.Now(), max(o.pause, firstPause), ""
	}
	text := strings.Join(strings.Fields(err.Error()), " ") // pgx has a line for each host
	switch news := text != o.last; {
	case news && errors.As(err, &permanentError{}):
		log.Error("cannot take part", "error", text)
	case first:
		log.Warn("no session at the server; trying for as long as it takes", "error", text)
	case news:
		log.Debug("still no session at the server", "error", text)
	}
	o.last = text
	wait := retry.Jitter(o.pause)
	o.pause = min(2*o.pause, longestPause)
	return wait
}

// over notes that there is a session.
func (o *outage) over(log *slog.Logger) {
	if !o.began.IsZero() {
		log.Info("there is a session at the server again", "after", time.Since(o.began).Round(time.Millisecond))
	}
	o.began = time.Time{}
}

// lasted notes how long the session has lasted: after one that was short, the next
// attempt is not at once.
func (o *outage) lasted(d time.Duration) {
	if d > longestPause {
		o.pause = 0
	}
}
