package kubernetes

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/resourceversion"
)

// store is what this node knows of the Lease objects: from its watch, and from
// the answers to its own requests, which come earlier or later than the watch
// tells of them. All methods may be called concurrently.
type store struct {
	clock func() time.Duration
	ttl   time.Duration // of this node

	mu      sync.Mutex
	entries map[string]*entry // by name
	since   time.Duration     // when the list came that the watch has begun with
}

// entry is what is known of one object.
type entry struct {
	state
	version string        // of the last event
	heard   time.Duration // when that was
	changed chan struct{} // closed at the next change; nil while nobody waits
}

// state is what is known of one object at a time.
type state struct {
	object *object // nil: there is none
	record record  // that it has

	// free is when the lease has run out, by the clock, if it is not renewed. The
	// moment at which a change was received counts: a holder has sent its renewal
	// before, and counts from there. Zero after a release.
	free time.Duration

	// held is the object as the last holder wrote it, if that has not released it,
	// and heldUntil what free is for it. They outlive the object, and what was put
	// in its place.
	held      *object
	heldUntil time.Duration

	// complete says that the watch has told of the object as it is, and so of all
	// that was before.
	complete bool

	// floor is the largest token that was granted, as far as is known. It outlives
	// the object.
	floor uint64
}

func newStore(clock func() time.Duration, ttl time.Duration) *store {
	return &store{clock: clock, ttl: ttl, entries: map[string]*entry{}}
}

// look returns what is known of an object, and what is closed when that changes.
func (s *store) look(name string) (state, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entry(name)
	if e.changed == nil {
		e.changed = make(chan struct{})
	}
	return e.state, e.changed
}

// isCurrent reports whether o has the version of the object as it is known; or
// none, if no object is known.
func (s *store) isCurrent(o *object) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[o.Name]
	if e == nil || e.object == nil {
		return o.ResourceVersion == ""
	}
	return o.ResourceVersion == e.object.ResourceVersion
}

// all returns what is known of all objects that are there.
func (s *store) all() []state {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []state
	for _, e := range s.entries {
		if e.object != nil {
			all = append(all, e.state)
		}
	}
	return all
}

// anyHeld reports whether a lease is held that should be renewed.
func (s *store) anyHeld() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock()
	for _, e := range s.entries {
		if e.object != nil && e.record.holder != "" && now < e.free {
			return true
		}
	}
	return false
}

// entry is called with the lock.
func (s *store) entry(name string) *entry {
	e := s.entries[name]
	if e == nil {
		e = &entry{}
		s.entries[name] = e
	}
	return e
}

// answered takes note of an object that the server has answered with, unless a
// newer one is known.
func (s *store) answered(o *object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entry(o.Name); !older(o.ResourceVersion, e.version) {
		complete := e.complete && o.ResourceVersion == e.version
		s.put(e, o)
		e.complete = complete
	}
}

// watched takes note of an object that the watch tells of. It may be older than
// what an answer has told; if that was of an object which is new, it matters who
// had it before.
func (s *store) watched(o *object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entry(o.Name)
	switch {
	case !older(o.ResourceVersion, e.version):
		s.put(e, o)
		e.complete = true
	case e.object != nil && e.record.settling:
		e.remember(o, readRecord(o), s.clock()+s.lasts(readRecord(o)))
	}
}

// observeGone takes note that an object is not there. The version is that of its
// deletion; empty if that is not known.
func (s *store) observeGone(name, version string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entry(name); version == "" || !older(version, e.version) {
		s.remove(e, version)
	}
}

// replace takes note of all objects, as a list has them that was asked for at that
// time. What was known before is taken as outdated even if its version says
// otherwise: a server may have been restored from a backup. It returns the names of
// those that are gone.
func (s *store) replace(objects []object, version string, asked time.Duration) (gone []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = s.clock()
	listed := map[string]bool{}
	for i := range objects {
		o := &objects[i]
		listed[o.Name] = true
		if e := s.entry(o.Name); e.heard < asked || !older(o.ResourceVersion, e.version) {
			s.put(e, o)
		}
	}
	for name, e := range s.entries {
		if e.object != nil && !listed[name] && (e.heard < asked || older(e.version, version)) {
			s.remove(e, version)
			gone = append(gone, name)
		}
	}
	return gone
}

// hasWatchedFor reports whether the watch has told of everything for so long.
func (s *store) hasWatchedFor(d time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.since > 0 && s.clock()-s.since >= d
}

// older reports whether version a is known to be older than b.
func older(a, b string) bool {
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && order < 0
}

// put is called with the lock.
func (s *store) put(e *entry, o *object) {
	now := s.clock()
	r := readRecord(o)
	if r.token < e.floor {
		r.released = false // something older was put in the place of an object
	}
	switch {
	case r.released:
		e.free = 0
	case e.object == nil || r != e.record:
		e.free = max(e.free, now+s.lasts(r))
	}
	e.object, e.record, e.complete = o, r, false
	e.remember(o, r, e.free)
	e.tell(o.ResourceVersion, now)
}

// remember takes note of who holds a lease, and until when, unless that is a
// holder who waits for others to object.
func (e *entry) remember(o *object, r record, until time.Duration) {
	if r.settling {
		return
	}
	e.floor = max(e.floor, r.token)
	e.held, e.heldUntil = nil, 0
	if r.holder != "" {
		e.held, e.heldUntil = o, until
	}
}

// remove is called with the lock. It is not known whether the lease was renewed
// before the object was removed, so it lasts from now on.
func (s *store) remove(e *entry, version string) {
	now := s.clock()
	if e.object != nil {
		if !e.record.released {
			e.free = max(e.free, now+s.lasts(e.record))
		}
		if e.held != nil && !e.record.settling {
			e.heldUntil = e.free
		}
		e.object, e.record, e.complete = nil, record{}, false
	}
	if version == "" {
		version = e.version
	}
	e.tell(version, now)
}

// lasts returns how long a lease lasts from a renewal on. A hand that has made it
// shorter does not make its holder faster.
func (s *store) lasts(r record) time.Duration { return min(max(r.duration, s.ttl), maxTTL) }

func (e *entry) tell(version string, now time.Duration) {
	e.version, e.heard = version, now
	if e.changed != nil {
		close(e.changed)
		e.changed = nil
	}
}
