package kubernetes

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"highlander/internal/retry"
)

// mender puts back what a hand has deleted, if somebody may still run because of
// it: nodes that did not know the object would not wait. The holder does that
// itself, and first. The others do it for one that cannot reach the server.
type mender struct {
	requests *requests
	store    *store
	node     string
	log      *slog.Logger

	tasks sync.WaitGroup
	mu    sync.Mutex
	busy  map[string]bool // by name
}

// look mends objects that need it, in goroutines of their own.
func (m *mender) look(ctx context.Context, names ...string) {
	for _, name := range names {
		if s, _ := m.store.look(name); m.plan(s) != nil && m.begin(name) {
			m.tasks.Go(func() {
				defer m.end(name)
				m.mend(ctx, name)
			})
		}
	}
}

func (m *mender) begin(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.busy[name] {
		return false
	}
	m.busy[name] = true
	return true
}

func (m *mender) end(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.busy, name)
}

// mendTries is how often an object is mended at once; what else happens to it
// starts the next round.
const mendTries = 3

// mend gives the holder a moment, and other menders, not all of whom need to try.
func (m *mender) mend(ctx context.Context, name string) {
	for range mendTries {
		if !retry.Sleep(ctx, settle/15+rand.N(settle/10)) {
			return
		}
		s, _ := m.store.look(name)
		o := m.plan(s)
		if o == nil {
			return
		}
		m.write(ctx, o)
	}
}

func (m *mender) write(ctx context.Context, o *object) {
	if _, err := m.requests.putIfCurrent(ctx, m.requests.mends, o); err != nil {
		if m.store.isCurrent(o) {
			m.requests.get(ctx, o.Name) // the store takes note; an error is as good as none
		}
		return
	}
	r := readRecord(o)
	m.log.Warn("put back a Lease object that was deleted", "id", r.id, "object", o.Name, "holder", r.holder, "token", r.token)
}

// plan returns what to write; nil if there is nothing to mend.
func (m *mender) plan(s state) *object {
	if s.object != nil && !s.record.settling {
		return nil
	}
	switch {
	case s.held != nil && isAnIDs(s.held) && value(s.held.Spec.HolderIdentity) != m.node && m.store.clock() < s.heldUntil:
		return inPlaceOf(s.object, s.held)
	case s.object != nil && s.record.holder != m.node && s.record.token <= s.floor:
		return raised(s.object, s.floor+1)
	}
	return nil
}

// isAnIDs reports whether an object is not another program's, which may well delete
// it.
func isAnIDs(o *object) bool { return readRecord(o).id != "" }

// inPlaceOf returns the object that writes held over what is there, which may be
// nil.
func inPlaceOf(there, held *object) *object {
	o := held.DeepCopy()
	o.UID, o.ResourceVersion = "", ""
	if there != nil {
		o.UID, o.ResourceVersion = there.UID, there.ResourceVersion
	}
	return o
}

// raised returns an object with a larger token.
func raised(settling *object, token uint64) *object {
	o := settling.DeepCopy()
	o.Annotations[tokenKey] = strconv.FormatUint(token, 10)
	o.Spec.LeaseTransitions = ptr(int32(min(token, maxInt32)))
	return o
}

// settle is how long the holder of an object that it has made waits before it
// runs anything: another that lives may have it taken back by then, or a mender.
const settle = 300 * time.Millisecond
