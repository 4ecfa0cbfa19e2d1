package gossip

import (
	"fmt"
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// dropLog counts what was dropped and logs it at most once a second. It also
// takes memberlist's log, in which dropped packets are error lines.
type dropLog struct {
	log *slog.Logger

	mu     sync.Mutex
	n      uint64
	logged time.Time
}

func (d *dropLog) count(reason string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.n++
	if now := time.Now(); now.Sub(d.logged) >= time.Second {
		d.logged = now
		d.log.Warn("dropped what is not for this cluster", "reason", reason, "total", d.n)
	}
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
