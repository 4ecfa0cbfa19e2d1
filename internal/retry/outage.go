package retry

import (
	"log/slog"
	"time"
)

// Outage is the times in which a server cannot be used. Each is logged in one line
// when it begins, and in one when it ends. One goroutine at a time uses it.
type Outage struct {
	log    *slog.Logger
	clock  func() time.Duration
	server string

	lasts bool
	began time.Duration // by the clock
}

// NewOutage returns what logs the outages of a server, which is called so.
func NewOutage(log *slog.Logger, clock func() time.Duration, server string) *Outage {
	return &Outage{log: log, clock: clock, server: server}
}

// Fails says that something has failed, and is tried again.
func (o *Outage) Fails(err error) {
	if o.lasts {
		o.log.Debug(o.server+": still no success", "error", err)
		return
	}
	o.lasts, o.began = true, o.clock()
	o.log.Warn(o.server+" cannot be used; trying again", "error", err)
}

// Works says that nothing fails any more.
func (o *Outage) Works() {
	if o.lasts {
		o.lasts = false
		o.log.Info(o.server+" can be used again", "after", (o.clock() - o.began).Round(10*time.Millisecond))
	}
}
