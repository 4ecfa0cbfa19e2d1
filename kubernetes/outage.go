package kubernetes

import (
	"log/slog"
	"maps"
	"sync"
	"time"

	"highlander/internal/retry"
)

// outage is a time in which something fails that the node tries until it does not.
// One line is logged when it begins and one when it ends, however many leases it
// meets. It is told by name what is tried: that of a Lease object that is to be
// written, or theWatch.
type outage struct {
	mu      sync.Mutex
	lines   *retry.Outage
	failing map[string]bool // by name; false: it was given up
}

const theWatch = ""

func newOutage(log *slog.Logger, clock func() time.Duration) *outage {
	return &outage{lines: retry.NewOutage(log, clock, "Kubernetes"), failing: map[string]bool{}}
}

// fails says that something has failed, and is tried again.
func (o *outage) fails(name string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failing[name] = true
	o.lines.Fails(err)
}

// givesUp says that something is not tried any more, for now. If it has failed, it
// may fail for the same reason when it is tried next, as when a lease was lost and
// the id is waited for: that is the same outage, unless something works meanwhile.
func (o *outage) givesUp(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failing[name] {
		o.failing[name] = false
	}
}

// works says that something was answered, or has no need to be tried.
func (o *outage) works(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.failing, name)
	maps.DeleteFunc(o.failing, func(_ string, tried bool) bool { return !tried })
	if len(o.failing) == 0 {
		o.lines.Works()
	}
}
