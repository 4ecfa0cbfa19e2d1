package etcd

import (
	"maps"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// view is what this process has seen of the keys of the cluster, in the order in
// which they were written. It has no locks and no clock of its own.
type view struct {
	keys     keys
	ttl      time.Duration // of this process: for records that cannot be read
	revision int64         // of the newest event
	ids      map[string]*entry
	nodes    map[clientv3.LeaseID]bool // whose keys are there
}

// entry is what was seen of an id.
type entry struct {
	nodes  map[clientv3.LeaseID]bool // of the view
	claims map[claimRef]seenClaim    // those count whose node is there

	record   record // the last one that could be read
	known    bool   // there was one
	revision int64  // of the key, whatever is in it; zero: there is none
	floor    uint64 // the highest token

	// When it was first seen that the record says held and the claim is gone.
	orphaned   bool
	orphanedAt time.Duration

	// Somebody has deleted or overwritten the record of a holder, whose child may
	// be running until then.
	notBefore time.Duration

	changed chan struct{} // closed at the next change
}

// seenClaim is a claim as it was seen.
type seenClaim struct {
	created int64 // revision
	value   []byte
}

func newView(k keys, ttl time.Duration) *view {
	return &view{keys: k, ttl: ttl, ids: map[string]*entry{}, nodes: map[clientv3.LeaseID]bool{}}
}

// id returns the entry of id, which is new if nothing was seen of it.
func (v *view) id(id string) *entry {
	e := v.ids[id]
	if e == nil {
		e = &entry{nodes: v.nodes, claims: map[claimRef]seenClaim{}, changed: make(chan struct{})}
		v.ids[id] = e
	}
	return e
}

// load takes all keys as they were at a revision, and returns the ids that have
// changed since.
func (v *view) load(kvs []*mvccpb.KeyValue, revision int64, now time.Duration) []string {
	there := map[string]bool{}
	for _, kv := range kvs {
		there[string(kv.Key)] = true
	}
	changed := map[string]bool{}
	for lease := range v.nodes {
		if key := v.keys.node(lease); !there[key] {
			v.deleted(key, now, changed)
		}
	}
	for id, e := range v.ids {
		for at := range e.claims {
			if !there[v.keys.claim(at)] {
				v.deleted(v.keys.claim(at), now, changed)
			}
		}
		if e.revision != 0 && !there[v.keys.held(id)] {
			v.deleted(v.keys.held(id), now, changed)
		}
	}
	for _, kv := range kvs {
		v.putNode(kv, changed)
		v.putClaim(kv, changed)
	}
	for id := range v.ids {
		changed[id] = true // a claim may have come and gone that was never seen here
	}
	for _, kv := range kvs {
		v.putRecord(kv, now, changed)
	}
	v.revision = revision
	return v.publish(changed, now)
}

// event is a change of a key. A key that was deleted has no value.
type event struct {
	kv      *mvccpb.KeyValue
	deleted bool
}

// apply takes events, in their order, and returns the ids they are about.
func (v *view) apply(events []event, now time.Duration) []string {
	changed := map[string]bool{}
	for _, ev := range events {
		if ev.deleted {
			v.deleted(string(ev.kv.Key), now, changed)
		} else {
			v.putNode(ev.kv, changed)
			v.putClaim(ev.kv, changed)
			v.putRecord(ev.kv, now, changed)
		}
		v.revision = max(v.revision, ev.kv.ModRevision)
	}
	return v.publish(changed, now)
}

func (v *view) putNode(kv *mvccpb.KeyValue, changed map[string]bool) {
	if lease, ok := v.keys.parseNode(string(kv.Key)); ok && !v.nodes[lease] {
		v.nodes[lease] = true
		v.markClaims(lease, changed)
	}
}

// markClaims marks the ids that a node has claims of.
func (v *view) markClaims(lease clientv3.LeaseID, changed map[string]bool) {
	for id, e := range v.ids {
		for at := range e.claims {
			if at.lease == lease {
				changed[id] = true
			}
		}
	}
}

func (v *view) putClaim(kv *mvccpb.KeyValue, changed map[string]bool) {
	at, ok := v.keys.parseClaim(string(kv.Key))
	if !ok {
		return
	}
	if e := v.id(at.id); e.claims[at].created != kv.CreateRevision {
		e.claims[at] = seenClaim{kv.CreateRevision, kv.Value}
		changed[at.id] = true
	}
}

func (v *view) putRecord(kv *mvccpb.KeyValue, now time.Duration, changed map[string]bool) {
	id, ok := v.keys.parseHeld(string(kv.Key))
	if !ok {
		return
	}
	e := v.id(id)
	if e.revision == kv.ModRevision {
		return
	}
	changed[id] = true
	e.revision = kv.ModRevision
	r, err := parseRecord(id, kv)
	if err != nil { // by hand: somebody may hold the id
		e.harmed(now, v.ttl)
		return
	}
	if r.Token <= e.record.Token && r.at != e.record.at {
		e.harmed(now, v.ttl) // no record of ours follows one with a higher token
	}
	if r.State == stateReleased && r.Token >= e.floor {
		e.notBefore = 0 // this is the word that was waited for
	}
	e.record, e.known = r, true
	e.floor = max(e.floor, r.Token)
	e.orphaned = false // it is looked at again in publish
}

func (v *view) deleted(key string, now time.Duration, changed map[string]bool) {
	if lease, ok := v.keys.parseNode(key); ok {
		delete(v.nodes, lease)
		v.markClaims(lease, changed)
	}
	if at, ok := v.keys.parseClaim(key); ok {
		if e := v.ids[at.id]; e != nil {
			delete(e.claims, at)
			changed[at.id] = true
		}
	}
	if id, ok := v.keys.parseHeld(key); ok {
		if e := v.ids[id]; e != nil {
			e.revision = 0
			e.harmed(now, v.ttl)
			changed[id] = true
		}
	}
}

// harmed is called when the record is replaced by hand: its holder, if there is
// one, may have a child that runs.
func (e *entry) harmed(now, ttl time.Duration) {
	switch {
	case !e.known: // of a holder that was never seen
		e.notBefore = max(e.notBefore, now+ttl)
	case e.record.State == stateHeld:
		e.notBefore = max(e.notBefore, now+e.record.ttl)
	}
}

// publish wakes those who wait for the ids.
func (v *view) publish(changed map[string]bool, now time.Duration) []string {
	for id := range changed {
		e := v.ids[id]
		orphaned := e.known && e.record.State == stateHeld && !e.holderIsThere()
		if orphaned && !e.orphaned {
			e.orphanedAt = now
		}
		e.orphaned = orphaned
		close(e.changed)
		e.changed = make(chan struct{})
	}
	return slices.Collect(maps.Keys(changed))
}

// created returns the revision of a claim that counts, zero if there is none.
func (e *entry) created(at claimRef) int64 {
	if !e.nodes[at.lease] {
		return 0
	}
	return e.claims[at].created
}

// heir returns the oldest claim that waits, and the record it would write if it
// won now; ok is false if there is none.
func (e *entry) heir() (next claimRef, r record, ok bool) {
	for at := range e.claims {
		if e.created(at) != 0 && !e.record.of(at) && (!ok || e.created(at) < e.created(next)) {
			next, ok = at, true
		}
	}
	if !ok {
		return next, r, false
	}
	r, err := parseBid(next, e.claims[next].value)
	return next, r, err == nil
}

// holderIsThere says whether the claim of the holder is there.
func (e *entry) holderIsThere() bool { return e.created(e.record.at) != 0 }

// isFree says whether nobody has the id, or waits for it, or may have a child that
// runs.
func (e *entry) isFree(now time.Duration) bool {
	for at := range e.claims {
		if e.created(at) != 0 {
			return false
		}
	}
	return now >= e.notBefore && !(e.known && e.record.State == stateHeld)
}

// isNext says whether at is the oldest claim of those that wait.
func (e *entry) isNext(at claimRef) bool {
	mine := e.created(at)
	for other := range e.claims {
		if created := e.created(other); created != 0 && created < mine && !e.record.of(other) {
			return false
		}
	}
	return true
}

// dead returns the leases of claims that do not count any more.
func (v *view) dead(ids []string) map[clientv3.LeaseID]bool {
	leases := map[clientv3.LeaseID]bool{}
	for _, id := range ids {
		for at := range v.ids[id].claims {
			if !v.nodes[at.lease] {
				leases[at.lease] = true
			}
		}
	}
	return leases
}

// opensAt returns when the id may be taken by the claim that is next, as far as
// is known; ok is false while its holder is there. seen is what was seen of the
// lease of the holder, nil if nothing.
func (e *entry) opensAt(seen *sighting) (at time.Duration, ok bool) {
	if !e.known || e.record.State == stateReleased {
		return e.notBefore, true
	}
	if !e.orphaned {
		return 0, false
	}
	at = e.orphanedAt + e.record.ttl
	if seen != nil && seen.explains(e.orphanedAt) {
		at = min(at, seen.latest)
	}
	return max(at, e.notBefore), true
}
