package kubernetes

import (
	"log/slog"
	"sync"
)

// outage logs the beginning and the end of a time in which something fails, and
// not what fails in between.
type outage struct {
	log  *slog.Logger
	what string

	mu     sync.Mutex
	failed bool
}

func (o *outage) begins(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failed {
		o.log.Debug(o.what+" fails still", "error", err)
		return
	}
	o.failed = true
	o.log.Warn(o.what+" fails; trying again until it does not", "error", err)
}

func (o *outage) ends() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failed {
		o.failed = false
		o.log.Info(o.what + " works again")
	}
}
