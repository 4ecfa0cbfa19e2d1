package highlandertest

import (
	"fmt"
	"sync"
	"time"
)

// timeline is the referee of leases that may run out. It knows when the child
// under each lease runs, and objects if two of them overlap, if a lease is given
// out before the last one has run out or was released, and if a token does not
// grow. It compares moments: a goroutine of the test that is late does no harm.
type timeline struct {
	mu    sync.Mutex
	spans []*span
}

// span is the time in which a child runs.
type span struct {
	lease    *lease
	stops    time.Time // when the child has stopped; zero while it was not told to
	released bool      // the engine was told that it has
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

// released is called when the child has stopped, before Release.
func (tl *timeline) released(sp *span) {
	tl.mu.Lock()
	defer tl.mu.Unlock()
	sp.released = true
}

// objection is what an earlier lease says against a later one.
func (sp *span) objection(l *lease, now time.Time) error {
	ends, err := sp.lease.Expires(), sp.lease.Err()
	stops := sp.stops
	if stops.IsZero() {
		stops = ends
	}
	switch {
	case sp.stops.IsZero() && err == nil:
		return fmt.Errorf("two children: the %v was given out while there is a %v", l, sp.lease)
	case now.Before(stops):
		return fmt.Errorf("two children: the %v was given out %v before the one under the %v has stopped (Err: %v)", l, stops.Sub(now), sp.lease, err)
	case !sp.released && now.Before(ends):
		return fmt.Errorf("the %v was given out %v before the %v has run out (Err: %v)", l, ends.Sub(now), sp.lease, err)
	case l.Token() <= sp.lease.Token():
		return fmt.Errorf("token does not grow: the %v follows token %d", l, sp.lease.Token())
	}
	return nil
}
