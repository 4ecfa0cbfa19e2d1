package kubernetes

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"highlander"
	"highlander/internal/lease"
)

// keeper renews one lease of this node until it is released or over. If its object
// is deleted or edited by hand, it writes it anew at once, for as long as the
// lease has not run out: nobody else can have been granted the id by then, and
// the child need not notice. Only if another holder is there, the lease is lost.
type keeper struct {
	requests *requests
	store    *store
	outage   *outage
	terms    lease.Terms
	log      *slog.Logger
	name     string
	claim    claim
	object   *object // as it was written last; run and release take turns
	lease    *lease.Lease

	stop    context.CancelFunc
	stopped chan struct{} // closed when run has returned

	turn     chan struct{} // has room for the one who releases
	released bool
}

// writeTries is how often a request is made at once while others change the
// object, too.
const writeTries = 5

// run renews until ctx or the lease ends. The first renewal is at a random
// moment of the interval, so that those of leases won together are spread.
func (k *keeper) run(ctx context.Context) {
	defer close(k.stopped)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer k.lease.AfterFunc(cancel)()
	wait, pause := rand.N(k.terms.Every), k.newBackOff()
	for {
		if !k.awaitTurn(ctx, wait) {
			return
		}
		began := k.store.clock()
		err := k.renew(ctx)
		if err == nil {
			pause.Reset()
			wait = began + k.terms.Every - k.store.clock()
			continue
		}
		if ctx.Err() == nil {
			k.outage.fails(k.name, err)
		}
		if !pause.sleep(ctx, err) {
			return
		}
		wait = 0
	}
}

func (k *keeper) newBackOff() backOff { return newBackOff(k.terms.Every / 3) }

// awaitTurn waits until it is time to renew, or the object is not as it should
// be. It returns false if ctx ended.
func (k *keeper) awaitTurn(ctx context.Context, wait time.Duration) bool {
	due := time.NewTimer(wait)
	defer due.Stop()
	for {
		s, changed := k.store.look(k.name)
		if s.object == nil || !k.claim.isHeldBy(s.record) || s.record.id != k.claim.id {
			return ctx.Err() == nil
		}
		select {
		case <-due.C:
			return true
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// renew writes the claim into the object.
func (k *keeper) renew(ctx context.Context) error {
	for range writeTries {
		if k.hasRunOut() || ctx.Err() != nil {
			return nil
		}
		sent, err := k.write(ctx, k.claim.holds)
		if err == nil {
			k.lease.Renew(k.terms.Until(sent))
			return nil
		}
		if !isOutdated(err) {
			return err
		}
		mine, err := k.reread(ctx)
		if err != nil {
			return err
		}
		if !mine {
			k.lease.Lose(highlander.ErrConflict)
			return nil
		}
	}
	return errors.New("others change the Lease object as fast as it is renewed")
}

// release writes that the child has stopped.
func (k *keeper) release(ctx context.Context) error {
	for pause := k.newBackOff(); ; {
		_, err := k.write(ctx, k.claim.isReleased)
		if err == nil {
			return nil
		}
		if isOutdated(err) {
			var mine bool
			if mine, err = k.reread(ctx); err == nil && !mine {
				return nil
			}
		}
		if err != nil && (k.hasRunOut() || !pause.sleep(ctx, err)) {
			return err
		}
	}
}

// write writes the object, as edit changes it, if it has not been changed by
// others; or makes it, if it was deleted. It returns when the request was sent.
func (k *keeper) write(ctx context.Context, edit func(*object, time.Time)) (sent time.Duration, err error) {
	o := k.object.DeepCopy()
	edit(o, time.Now())
	got, err := k.requests.put(ctx, k.requests.keeps, o)
	if err == nil || isOutdated(err) {
		k.outage.works(k.name)
	}
	if err != nil {
		return 0, err
	}
	k.object = got.object
	return got.sent, nil
}

// reread looks at what others have made of the object, and returns whether this
// claim may be written there.
func (k *keeper) reread(ctx context.Context) (mine bool, err error) {
	got, err := k.requests.get(ctx, k.name)
	if err != nil {
		return false, err
	}
	if mine = k.mayWrite(got); !mine {
		return false, nil
	}
	if got == nil {
		got = k.object.DeepCopy()
		got.UID, got.ResourceVersion = "", ""
	}
	k.object = got
	return true, nil
}

// mayWrite reports whether this claim may be written over an object, nil if there
// is none.
func (k *keeper) mayWrite(o *object) bool {
	if o == nil {
		k.harm(slog.LevelWarn, "the Lease object was deleted")
		return !k.hasRunOut()
	}
	switch r := readRecord(o); {
	case isForeign(o, k.claim.id):
		k.harm(slog.LevelError, "the Lease object is another program's now", "holder", r.holder)
		return false
	case k.claim.isHeldBy(r):
		return true
	case k.claim.mayTakeBack(r):
		k.harm(slog.LevelWarn, "the Lease object was changed by others", "holder", r.holder, "their_token", r.token)
		return !k.hasRunOut()
	default:
		k.harm(slog.LevelWarn, "the Lease object has another holder", "holder", r.holder, "their_token", r.token)
		return false
	}
}

// harm logs what was done to a lease that is held.
func (k *keeper) harm(level slog.Level, what string, about ...any) {
	if k.lease.Err() == nil {
		k.log.Log(context.Background(), level, what, about...)
	}
}

func (k *keeper) hasRunOut() bool { return k.store.clock() >= k.lease.Until() }

// halt ends run and waits for it.
func (k *keeper) halt() {
	k.stop()
	<-k.stopped
}
