package gossip

import (
	"fmt"
	"log"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"
)

// dropLog counts what was dropped and logs it at most once a second. It also
// takes memberlist's log, in which dropped packets are error lines.
type dropLog struct {
	log *slog.Logger

	mu        sync.Mutex
	n         uint64
	drop      throttle
	stranger  error // the last node of other rules
	met       time.Time
	strangers uint64
	refusals  map[refusal]time.Time // when they were logged
}

// refusal is why a node of other rules was refused. One that is started again and
// again is the same.
type refusal struct {
	voter string
	rules rules
}

const (
	refusalEvery = time.Minute // at most, it is logged
	maxRefusals  = 100         // that are kept apart
)

func (d *dropLog) count(reason string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.n++
	if d.drop.ready(time.Second) {
		d.log.Warn("dropped what is not for this cluster", "reason", reason, "total", d.n)
	}
}

// refused counts a node of other rules. Somebody has to do something about it,
// but it tries again each second.
func (d *dropLog) refused(why refusal, reason error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.n++
	d.strangers++
	d.stranger, d.met = reason, time.Now()
	if d.mayTell(why) {
		d.log.Error("refused a node whose settings are others: all need the same", "reason", reason, "total", d.n)
	}
}

// mayTell says whether a refusal may be logged again. When there are too many to
// keep apart, those that are new wait until others are old; d.mu is held.
func (d *dropLog) mayTell(why refusal) bool {
	maps.DeleteFunc(d.refusals, func(_ refusal, at time.Time) bool { return time.Since(at) >= refusalEvery })
	if _, told := d.refusals[why]; told || len(d.refusals) >= maxRefusals {
		return false
	}
	if d.refusals == nil {
		d.refusals = map[refusal]time.Time{}
	}
	d.refusals[why] = time.Now()
	return true
}

// lastRefused returns how many nodes of other rules were refused, and why the
// last one was, if that is not long ago.
func (d *dropLog) lastRefused(within time.Duration) (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.met) > within {
		return d.strangers, nil
	}
	return d.strangers, d.stranger
}

// throttle lets something pass once in a while.
type throttle struct{ passed time.Time }

// ready says whether it may pass now, the last time being that long ago.
func (t *throttle) ready(every time.Duration) bool {
	now := time.Now()
	if now.Sub(t.passed) < every {
		return false
	}
	t.passed = now
	return true
}

func (d *dropLog) total() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.n
}

// logger returns a logger for memberlist.
func (d *dropLog) logger() *log.Logger { return log.New(lineWriter{d}, "", 0) }

// lineWriter sorts memberlist's lines, "[LEVEL] memberlist: text".
type lineWriter struct{ d *dropLog }

func (w lineWriter) Write(b []byte) (int, error) {
	line := strings.TrimSpace(string(b))
	level, text, ok := strings.Cut(line, " memberlist: ")
	if !ok {
		text = line
	}
	switch {
	case (level == "[ERR]" || level == "[WARN]") && isInbound(text):
		w.d.count(text)
	default:
		w.d.log.Debug(fmt.Sprint("membership: ", text), "level", strings.Trim(level, "[]"))
	}
	return len(b), nil
}

// isInbound says whether a complaint of memberlist's is about something that
// came in: those name the address it came from, but for one.
func isInbound(text string) bool {
	return strings.Contains(text, " from=") || strings.HasPrefix(text, "Got invalid checksum")
}
