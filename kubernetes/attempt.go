package kubernetes

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"highlander/internal/retry"
)

// attempt is a call of Acquire whose turn it is. It waits until the id is free,
// and writes its claim into the object, if that has not changed since it was
// seen: so what it has seen may be out of date without harm.
//
// An object that is not there proves nothing by itself: it may have been deleted
// by hand while somebody runs. Therefore one that is new settles before anything
// runs.
type attempt struct {
	requests *requests
	store    *store
	outage   *outage
	log      *slog.Logger
	name     string
	claim    claim

	wrote   bool          // the object may have the claim in it
	settled time.Duration // when the object that was made has settled; zero if none was
	looked  bool          // whose the object is was looked at again
}

const (
	haste      = 25 * time.Millisecond  // within which the waiters of all nodes try to take one id that is free
	staleAfter = 500 * time.Millisecond // how long the watch may take to tell why a request was refused
)

// run returns when the claim holds. The error is the cause of ctx, or final.
func (a *attempt) run(ctx context.Context) (*written, error) {
	for pause := newBackOff(maxPause); ; {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		s, changed := a.store.look(a.name)
		if s.object != nil && isForeign(s.object, a.claim.id) {
			if err := a.lookAgain(ctx, s, &pause); err != nil {
				return nil, err
			}
			continue
		}
		got, err := a.step(ctx, s, changed)
		switch {
		case got != nil:
			return got, nil
		case err == nil:
			pause.Reset()
		case isOutdated(err):
			a.catchUp(ctx, changed)
		default:
			a.fails(ctx, err)
			pause.sleep(ctx, err)
		}
	}
}

// step does the next thing that there is to do, be it to wait.
func (a *attempt) step(ctx context.Context, s state, changed <-chan struct{}) (*written, error) {
	now := a.store.clock()
	switch {
	case a.isMine(s):
		if wait := a.settles(s, now); wait > 0 {
			await(ctx, wait, changed)
			return nil, nil
		}
		a.claim.token = max(s.record.token, s.floor+1) // others may have raised it
		return a.hold(ctx, s)
	case now < s.free:
		if s.record.holder != "" && s.record.holder != a.claim.node {
			a.outage.works(a.name) // of no need: somebody else can write
		}
		await(ctx, s.free-now, changed)
		return nil, nil
	case s.object == nil:
		a.claim.token = s.floor + 1
		return nil, a.create(ctx)
	}
	if await(ctx, rand.N(a.within()), changed) {
		return nil, nil
	}
	a.claim.token = s.floor + 1
	got, err := a.hold(ctx, s)
	if err == nil && s.record.holder != "" {
		a.log.Info("the lease of the holder has run out; taking over", "id", a.claim.id, "holder", s.record.holder, "held", s.record.token)
	}
	return got, err
}

// within returns how long an id that is free may be left to other nodes. If many
// are free, as when their holder has died, all nodes that wait try for all of them,
// and most requests come too late: the more this node has under way, the more time
// there is for the news that they would.
func (a *attempt) within() time.Duration {
	return haste * time.Duration(1+len(a.requests.starts))
}

// isMine reports whether the object has this claim in it, and not that of an
// earlier lease of this node.
func (a *attempt) isMine(s state) bool {
	return a.wrote && s.object != nil && s.record.holder == a.claim.node &&
		(s.record.settling || s.record.token == a.claim.token)
}

// hold writes that the claim holds.
func (a *attempt) hold(ctx context.Context, s state) (*written, error) {
	o := s.object.DeepCopy()
	a.claim.since = time.Now()
	a.claim.holds(o, a.claim.since)
	return a.write(ctx, o)
}

// create makes the object.
func (a *attempt) create(ctx context.Context) error {
	o := &object{ObjectMeta: meta.ObjectMeta{Name: a.name}}
	a.claim.since = time.Now()
	a.claim.settles(o, a.claim.since)
	a.settled = 0
	_, err := a.write(ctx, o)
	return err
}

// write remembers that an object may have the claim in it, also if no answer
// comes.
func (a *attempt) write(ctx context.Context, o *object) (*written, error) {
	before := a.wrote
	a.wrote = true
	got, err := a.requests.putIfCurrent(ctx, a.requests.starts, o)
	if err != nil && isRefused(err) {
		a.wrote = before
	}
	if err == nil || isOutdated(err) {
		a.outage.works(a.name)
	}
	return got, err
}

func (a *attempt) fails(ctx context.Context, err error) {
	if ctx.Err() == nil {
		a.outage.fails(a.name, err)
	}
}

// settles returns how long an object that was made has to settle still. It has
// none to do if the watch proves that nobody can hold the id: what it has told
// goes back for a whole TTL, and to the moment at which the object was made.
func (a *attempt) settles(s state, now time.Duration) time.Duration {
	switch {
	case !s.record.settling:
		return 0
	case now < s.heldUntil:
		return s.heldUntil - now // somebody else has it, as the watch has told since; it is put back
	case s.complete && a.store.hasWatchedFor(a.claim.ttl):
		return 0
	case a.settled == 0:
		a.settled = now + settle
	}
	return a.settled - now
}

// catchUp waits until the watch has told of the change, and asks if it does not.
func (a *attempt) catchUp(ctx context.Context, changed <-chan struct{}) {
	if !await(ctx, retry.Jitter(staleAfter), changed) && ctx.Err() == nil {
		a.requests.get(ctx, a.name) // the store takes note; if it fails, the next try is refused again
	}
}

// lookAgain looks once more at an object that is somebody else's: those are not
// watched.
func (a *attempt) lookAgain(ctx context.Context, s state, pause *backOff) error {
	if a.looked {
		return errForeign(a.claim.id, s.object)
	}
	if _, err := a.requests.get(ctx, a.name); err != nil {
		a.fails(ctx, err)
		pause.sleep(ctx, err)
		return nil
	}
	a.looked = true
	return nil
}

func errForeign(id string, o *object) error {
	return fmt.Errorf("kubernetes: the id %q needs the Lease object %s/%s, but that is another program's (annotation %s is %q, label %s is %q, holder %q); rename the id or remove the object",
		id, o.Namespace, o.Name, idKey, o.Annotations[idKey], managedBy, o.Labels[managedBy], value(o.Spec.HolderIdentity))
}

// await waits for a change, for a time at most, and returns whether it came.
func await(ctx context.Context, d time.Duration, changed <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-changed:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// abandon takes the claim back after run has failed, if it was or may have been
// written.
func (a *attempt) abandon(ctx context.Context) {
	for pause := newBackOff(maxPause); ctx.Err() == nil; {
		got, err := a.requests.get(ctx, a.name)
		if err == nil {
			if got == nil || !a.isMine(state{object: got, record: readRecord(got)}) {
				return
			}
			o := got.DeepCopy()
			a.claim.token = readRecord(got).token
			a.claim.isReleased(o, time.Now())
			if _, err = a.requests.put(ctx, a.requests.keeps, o); err == nil {
				return
			}
		}
		pause.sleep(ctx, err)
	}
}
