package highlandertest

import (
	"fmt"
	"sync"
	"time"
)

// timeline is the referee of leases that may run out. It knows when the child
// under each lease runs, and objects if two of them overlap, or if a token does
// not grow. It compares moments: a goroutine of the test that is late does no harm.
type timeline struct {
	mu    sync.Mutex
	spans []*span
}

// span is the time in which a child runs.
type span struct {
	lease *lease
	stops time.Time // when the child has stopped; zero while it was not told to
}

// granted is called as soon as Acquire has returned.
func (tl *timeline) granted(l *lease) (sp *span, objection error) {
	now := time.Now()
	tl.mu.Lock()
	defer tl.mu.Unlock()
	for _, earlier := range tl.spans {
		if objection == nil {
			objection = earlier.objection(l, now)
		}
	}
	sp = &span{lease: l}
	tl.spans = append(tl.spans, sp)
	return sp, objection
}

// stopping is called when the child was told to stop.
func (tl *timeline) stopping(sp *span, stops time.Time) {
	tl.mu.Lock()
	defer tl.mu.Unlock()
	sp.stops = stops
}

// objection is what an earlier lease says against a later one.
func (sp *span) objection(l *lease, now time.Time) error {
	err, stops := sp.lease.Err(), sp.stops
	if stops.IsZero() {
		stops = sp.lease.Expires()
	}
	switch {
	case sp.stops.IsZero() && err == nil:
		return fmt.Errorf("two children: the %v was given out while there is a %v", l, sp.lease)
	case now.Before(stops):
		return fmt.Errorf("two children: the %v was given out %v before the one under the %v has stopped (Err: %v)", l, stops.Sub(now), sp.lease, err)
	case l.Token() <= sp.lease.Token():
		return fmt.Errorf("token does not grow: the %v follows token %d", l, sp.lease.Token())
	}
	return nil
}
