package kubernetes

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	coordination "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	typed "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/klog/v2"
)

// requests are those that the engine makes of the server. Each has a time-out of
// its own, so that a server that hangs does not eat a whole lease, and what is
// answered is told to the store.
type requests struct {
	leases  typed.LeaseInterface
	clock   func() time.Duration
	store   *store
	timeout time.Duration
	starts  lane // of calls of Acquire, which do not hold up ...
	keeps   lane // ... what is there to keep or release a lease; and neither waits ...
	mends   lane // ... for what is there to mend

	heard  atomic.Int64 // when the server has answered last, by the clock
	hangUp func()       // closes all connections; nil if they are not ours
}

// do makes a request. When the server was not heard of for all of its time, the
// connection may be dead, without anybody having told us: a new one is tried next.
func (r *requests) do(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(silent(ctx), r.timeout)
	defer cancel()
	ctx, refuse := withRefusal(ctx, r.timeout)
	defer refuse(nil)
	sent := r.clock()
	err := orRefusal(ctx, f(ctx))
	if err == nil || isAnswer(err) {
		r.heard.Store(int64(r.clock()))
		return err
	}
	if ctx.Err() == context.DeadlineExceeded && time.Duration(r.heard.Load()) < sent && r.hangUp != nil {
		r.hangUp()
	}
	return err
}

// silent keeps client-go from logging, to standard error, what its errors say, too.
func silent(ctx context.Context) context.Context { return klog.NewContext(ctx, klog.Logger{}) }

// isAnswer reports whether the server has said that.
func isAnswer(err error) bool {
	return apierrors.ReasonForError(err) != meta.StatusReasonUnknown || isNowhere(err)
}

// nowhereError is the answer that an object could not be made because there is no
// such namespace. To client-go that is the same as an object that is not there,
// which is no failure.
type nowhereError struct{ answer string }

func (e nowhereError) Error() string { return e.answer }

func isNowhere(err error) bool { return errors.As(err, new(nowhereError)) }

// isRefused reports whether the server has said that it did not do what it was
// asked for. After any other error it may have.
func isRefused(err error) bool {
	return isOutdated(err) || isNowhere(err) || apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) || apierrors.IsInvalid(err) || apierrors.IsTooManyRequests(err)
}

// isOutdated reports whether a request was refused because the object is not what
// it was when it was seen.
func isOutdated(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsNotFound(err) || apierrors.IsAlreadyExists(err)
}

// written is an object as it was written.
type written struct {
	object *object
	sent   time.Duration // when the request was, by the clock
}

// lane has room for so many requests at a time. What has to wait waits here, not
// at the server, where its time-out would go by.
type lane chan struct{}

func (l lane) enter(ctx context.Context) error {
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l lane) leave() { <-l }

// put writes an object if it still has the version of o; or makes it, if o has
// none.
func (r *requests) put(ctx context.Context, l lane, o *object) (*written, error) {
	if err := l.enter(ctx); err != nil {
		return nil, err
	}
	defer l.leave()
	return r.write(ctx, o)
}

// putIfCurrent is put for an object that others try to write, too, made of what
// the store knows. If that has changed while it waited for room, it is not sent:
// the server would refuse it, and many of those delay what it would not. The error
// is the one that the server would give.
func (r *requests) putIfCurrent(ctx context.Context, l lane, o *object) (*written, error) {
	if err := l.enter(ctx); err != nil {
		return nil, err
	}
	defer l.leave()
	if !r.store.isCurrent(o) {
		return nil, apierrors.NewConflict(coordination.Resource("leases"), o.Name, errOvertaken)
	}
	return r.write(ctx, o)
}

var errOvertaken = errors.New("others have changed it meanwhile")

func (r *requests) write(ctx context.Context, o *object) (*written, error) {
	w := &written{sent: r.clock()}
	err := r.do(ctx, func(ctx context.Context) (err error) {
		w.object, err = r.writeOnce(ctx, o)
		return err
	})
	if err != nil {
		return nil, err
	}
	r.store.answered(w.object)
	return w, nil
}

func (r *requests) writeOnce(ctx context.Context, o *object) (*object, error) {
	if o.ResourceVersion != "" {
		return r.leases.Update(ctx, o, meta.UpdateOptions{})
	}
	made, err := r.leases.Create(ctx, o, meta.CreateOptions{})
	if apierrors.IsNotFound(err) {
		err = nowhereError{err.Error()}
	}
	return made, err
}

// get returns an object as it is now; nil if there is none.
func (r *requests) get(ctx context.Context, name string) (*object, error) {
	var got *object
	err := r.do(ctx, func(ctx context.Context) (err error) {
		got, err = r.leases.Get(ctx, name, meta.GetOptions{})
		return err
	})
	switch {
	case err == nil:
		r.store.answered(got)
		return got, nil
	case apierrors.IsNotFound(err):
		r.store.observeGone(name, "")
		return nil, nil
	}
	return nil, err
}

func (r *requests) list(ctx context.Context) (*listed, error) {
	l := &listed{asked: r.clock()}
	err := r.do(ctx, func(ctx context.Context) error {
		list, err := r.leases.List(ctx, meta.ListOptions{LabelSelector: selector})
		if err == nil {
			l.objects, l.version = list.Items, list.ResourceVersion
		}
		return err
	})
	return l, err
}

// listed is all objects at a time.
type listed struct {
	objects []object
	version string
	asked   time.Duration // before the request was sent
}

// watch asks for all changes after a version. It has no time-out.
func (r *requests) watch(ctx context.Context, version string) (watch.Interface, error) {
	return r.leases.Watch(silent(ctx), meta.ListOptions{
		LabelSelector:       selector,
		ResourceVersion:     version,
		AllowWatchBookmarks: true,
	})
}
