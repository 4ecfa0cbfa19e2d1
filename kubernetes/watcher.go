package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/watch"

	"highlander/internal/retry"
)

// watcher brings the store up to date: one list and one watch, for all ids.
type watcher struct {
	requests *requests
	store    *store
	mender   *mender
	silence  time.Duration // after which a watch is taken for dead while leases should be renewed
	outage   *outage

	synced chan struct{} // closed after the first list
	live   atomic.Bool   // what the store has is up to date
}

// run lists and watches until ctx ends.
func (w *watcher) run(ctx context.Context) {
	for pause := newBackOff(maxPause); ctx.Err() == nil; {
		version, err := w.list(ctx)
		if err == nil {
			began := time.Now()
			err = w.follow(ctx, version)
			if time.Since(began) > 2*maxPause { // a right to list is none to watch
				pause.Reset()
			}
		}
		w.live.Store(false)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			w.outage.fails(theWatch, err)
		}
		pause.sleep(ctx, err)
	}
}

func (w *watcher) list(ctx context.Context) (version string, err error) {
	listed, err := w.requests.list(ctx)
	if err != nil {
		return "", err
	}
	gone := w.store.replace(listed.objects, listed.version, listed.asked)
	select {
	case <-w.synced:
	default:
		close(w.synced)
	}
	w.mender.look(ctx, gone...)
	for i := range listed.objects {
		w.mender.look(ctx, listed.objects[i].Name)
	}
	return listed.version, nil
}

// follow watches from a version on. It returns nil when it is time to list again:
// the server does not remember what came after the version, or the watch is
// silent.
func (w *watcher) follow(ctx context.Context, version string) error {
	for ctx.Err() == nil {
		began := time.Now()
		next, err := w.watchOnce(ctx, version)
		if err != nil || next == "" {
			return err
		}
		version = next
		if time.Since(began) < time.Second {
			retry.Sleep(ctx, retry.Jitter(time.Second)) // a server that ends each watch at once
		}
	}
	return nil
}

// watchOnce returns the version from which to go on when the server has ended the
// watch, as it does each few minutes.
func (w *watcher) watchOnce(ctx context.Context, version string) (next string, err error) {
	ctx, cancel := withRefusal(ctx, w.requests.timeout)
	defer cancel(nil)
	answer := time.AfterFunc(w.requests.timeout, func() { cancel(errNoAnswer) })
	events, err := w.requests.watch(ctx, version)
	switch inTime := answer.Stop(); {
	case isExpired(err):
		return "", nil
	case !inTime:
		if err == nil {
			events.Stop()
		}
		return "", errNoAnswer
	case err != nil:
		return "", orRefusal(ctx, err)
	}
	defer events.Stop()
	w.outage.works(theWatch)
	w.live.Store(true)
	quiet := time.NewTicker(w.silence)
	defer quiet.Stop()
	for {
		select {
		case event, open := <-events.ResultChan():
			if !open {
				return version, nil
			}
			quiet.Reset(w.silence)
			if event.Type == watch.Error {
				if err := apierrors.FromObject(event.Object); !isExpired(err) {
					return "", err
				}
				return "", nil
			}
			if version, err = w.take(ctx, event); err != nil {
				return "", err
			}
		case <-quiet.C:
			if w.store.anyHeld() {
				return "", nil
			}
		case <-ctx.Done():
			return "", nil
		}
	}
}

var errNoAnswer = errors.New("no answer to a watch")

// isExpired reports whether the server has forgotten what came after a version.
func isExpired(err error) bool { return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) }

// take takes note of an event and returns its version.
func (w *watcher) take(ctx context.Context, event watch.Event) (version string, err error) {
	o, ok := event.Object.(*object)
	if !ok {
		return "", fmt.Errorf("the watch has told of a %T", event.Object)
	}
	switch event.Type {
	case watch.Added, watch.Modified:
		w.store.watched(o)
		w.mender.look(ctx, o.Name)
	case watch.Deleted:
		w.store.observeGone(o.Name, o.ResourceVersion)
		w.mender.look(ctx, o.Name)
	}
	return o.ResourceVersion, nil
}
