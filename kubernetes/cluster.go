package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/connrotation"

	"highlander"
	"highlander/internal/boottime"
	"highlander/internal/lease"
	"highlander/internal/nodename"
)

// Cluster is one node of a cluster whose leases are Lease objects of one
// namespace. It implements highlander.Cluster; all methods may be called
// concurrently. Nothing is asked of the server before the first call, and
// watched only from the first Acquire on.
type Cluster struct {
	node      string
	namespace string
	ttl       time.Duration
	terms     lease.Terms
	log       *slog.Logger

	requests *requests
	store    *store
	watcher  *watcher
	mender   *mender
	outage   *outage
	book     *lease.Book
	turns    lease.Turns

	closing context.Context // ends with ErrClosed when Close begins
	close   context.CancelCauseFunc
	parting context.Context // ends when Close gives up what is not released by then
	giveUp  context.CancelCauseFunc
	session context.Context // ends when Close has released everything
	end     context.CancelFunc
	start   func() // starts the watcher

	watching sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	keepers map[*keeper]struct{}
	calls   sync.WaitGroup // of Acquire, and what is left to do after them
	done    chan struct{}  // closed when Close has ended
}

var _ highlander.Cluster = (*Cluster)(nil)

// New returns a node that uses a client which the program has. The rate limit is
// the client's: a lease takes five requests per TTL, which is a third of a request
// per second as a rule, and its start two more. So the 5 per second that client-go
// allows by default (rest.Config.QPS) do for about ten ids. Nothing of the client
// is closed. An error is a bad argument or option.
func New(clientset kubernetes.Interface, namespace string, opts ...Option) (*Cluster, error) {
	cfg, err := newConfig(opts)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	if clientset == nil {
		return nil, errors.New("kubernetes: the clientset is nil")
	}
	return newCluster(clientset, namespace, cfg, nil)
}

// Open returns a node for a cluster URL:
//
//	kubernetes://NAMESPACE?name=N&ttl=15s&kubeconfig=FILE&context=C
//
// In a pod, the credentials are those of its service account; elsewhere, or if
// kubeconfig or context is given, those of a kubeconfig, which is found as kubectl
// finds it. Without NAMESPACE it is the pod's own, or that of the kubeconfig's
// context. An option overrides what the URL says. An error is a bad URL,
// kubeconfig or option.
func Open(url string, opts ...Option) (*Cluster, error) {
	where, fromURL, err := parseURL(url)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: cluster URL: %w", err)
	}
	cfg, err := newConfig(append(fromURL, opts...))
	if err != nil {
		return nil, fmt.Errorf("kubernetes: cluster URL: %w", err)
	}
	access, namespace, err := where.load()
	if err != nil {
		return nil, fmt.Errorf("kubernetes: cluster URL: %w", err)
	}
	// The server has limits of its own, which are fair to others; renewals must
	// not wait for the start of other ids.
	access.QPS = -1
	access.UserAgent = "highlander"
	access.ContentType = "application/vnd.kubernetes.protobuf"
	dialer := connrotation.NewDialer((&net.Dialer{Timeout: cfg.timeout()}).DialContext)
	access.Dial = dialer.DialContext
	access.Wrap(func(inner http.RoundTripper) http.RoundTripper { return refuser{inner} })
	clientset, err := kubernetes.NewForConfig(access)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: cluster URL: %w", oneLine(err))
	}
	return newCluster(clientset, namespace, cfg, dialer.CloseAll)
}

// newCluster makes a node. hangUp closes all connections; nil if they are not
// ours.
func newCluster(clientset kubernetes.Interface, namespace string, cfg config, hangUp func()) (*Cluster, error) {
	if wrong := validation.IsDNS1123Label(namespace); len(wrong) > 0 {
		return nil, fmt.Errorf("kubernetes: namespace %q: %s", namespace, wrong[0])
	}
	c := &Cluster{
		namespace: namespace,
		node:      nodename.Join(cfg.name, nodename.NewIncarnation()),
		ttl:       cfg.ttl,
		terms:     cfg.terms(),
		keepers:   map[*keeper]struct{}{},
		done:      make(chan struct{}),
	}
	c.log = cfg.log.With("node", c.node)
	c.closing, c.close = context.WithCancelCause(context.Background())
	c.parting, c.giveUp = context.WithCancelCause(context.Background())
	c.session, c.end = context.WithCancel(context.Background())
	c.book = lease.NewBook(boottime.Now, c.log)
	c.outage = newOutage(c.log, boottime.Now)
	c.store = newStore(boottime.Now, cfg.ttl)
	c.requests = &requests{
		leases:  clientset.CoordinationV1().Leases(namespace),
		clock:   boottime.Now,
		store:   c.store,
		timeout: cfg.timeout(),
		starts:  make(lane, startsAtOnce),
		keeps:   make(lane, keepsAtOnce),
		mends:   make(lane, mendsAtOnce),
		hangUp:  hangUp,
	}
	c.mender = &mender{requests: c.requests, store: c.store, node: c.node, log: c.log, busy: map[string]bool{}}
	c.watcher = &watcher{
		requests: c.requests,
		store:    c.store,
		mender:   c.mender,
		silence:  cfg.ttl / 2,
		outage:   c.outage,
		synced:   make(chan struct{}),
	}
	c.start = sync.OnceFunc(func() { c.watching.Go(func() { c.watcher.run(c.session) }) })
	return c, nil
}

// How many requests of a kind are under way at a time. Those that start a lease are
// what other nodes may send at the same time, in vain. What is mended needs no more
// than a few, as a client that the program has may have a limit to its rate, which
// renewals need; and all nodes mend.
const (
	keepsAtOnce  = 32
	startsAtOnce = 16
	mendsAtOnce  = 8
)

// Node implements highlander.Cluster.
func (c *Cluster) Node() string { return c.node }

// CheckStopWithin returns an error, with the arithmetic, if a child that may take
// d to stop does not fit into the TTL. Acquire refuses it with the same words.
func (c *Cluster) CheckStopWithin(d time.Duration) error { return c.terms.CheckStopWithin(d) }

// Acquire implements highlander.Cluster. Within this node, calls for one id are
// served first come, first served; which node comes first is left to chance. An
// error that is final is a bad id or option, or a Lease object of the id's name
// that belongs to another program.
func (c *Cluster) Acquire(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
	if err := c.terms.CheckAcquire(id, opts); err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	if !c.enter() {
		return nil, highlander.ErrClosed
	}
	defer c.calls.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.closing, func() { cancel(highlander.ErrClosed) })()

	endTurn, err := c.turns.Take(ctx, id)
	if err != nil {
		return nil, err
	}
	a := &attempt{
		requests: c.requests,
		store:    c.store,
		outage:   c.outage,
		log:      c.log,
		name:     objectName(id),
		claim:    claim{id: id, node: c.node, meta: opts.Meta, ttl: c.ttl},
	}
	l, err := c.win(ctx, a, opts.StopWithin, endTurn)
	if err != nil {
		c.outage.givesUp(a.name)
		c.calls.Go(func() {
			defer endTurn()
			c.abandon(a)
		})
		return nil, err
	}
	return l, nil
}

// enter counts one more call of Acquire, unless the node is closed.
func (c *Cluster) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.calls.Add(1)
	c.start()
	return true
}

// win waits until the id is held, and keeps it from then on.
func (c *Cluster) win(ctx context.Context, a *attempt, stopWithin time.Duration, endTurn func()) (*lease.Lease, error) {
	select {
	case <-c.watcher.synced:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	won, err := a.run(ctx)
	if err != nil {
		return nil, err
	}
	return c.keep(a, won, stopWithin, endTurn)
}

func (c *Cluster) keep(a *attempt, won *written, stopWithin time.Duration, endTurn func()) (*lease.Lease, error) {
	k := &keeper{
		requests: c.requests,
		store:    c.store,
		outage:   c.outage,
		terms:    c.terms,
		log:      c.log.With("id", a.claim.id, "token", a.claim.token, "object", a.name),
		name:     a.name,
		claim:    a.claim,
		object:   won.object,
		stopped:  make(chan struct{}),
		turn:     make(chan struct{}, 1),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, highlander.ErrClosed
	}
	c.keepers[k] = struct{}{}
	k.lease = c.book.Grant(lease.Grant{
		ID:         a.claim.id,
		Token:      a.claim.token,
		StopWithin: stopWithin,
		Until:      c.terms.Until(won.sent),
		Release:    func(ctx context.Context) error { return c.release(ctx, k) },
		End:        endTurn,
	})
	var ctx context.Context
	ctx, k.stop = context.WithCancel(c.session)
	c.calls.Go(func() { k.run(ctx) })
	return k.lease, nil
}

// abandon takes back what a call of Acquire may have written that has failed.
func (c *Cluster) abandon(a *attempt) {
	if !a.wrote {
		return
	}
	ctx, cancel := context.WithTimeout(c.session, lastWords*c.requests.timeout)
	defer cancel()
	a.abandon(ctx)
}

// lastWords is how many time-outs long what is left to say is tried to be said.
const lastWords = 2

var errGivenUp = fmt.Errorf("%w: the server has not answered in time", highlander.ErrClosed)

// release stops the keeper and writes that the child has stopped. If Release and
// Close meet, the second one has its turn after the first. Neither goes on for
// longer than Close waits.
func (c *Cluster) release(ctx context.Context, k *keeper) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.parting, func() { cancel(context.Cause(c.parting)) })()
	if err := c.releaseInTurn(ctx, k); err != nil {
		return fmt.Errorf("kubernetes: release %q: %w", k.claim.id, err)
	}
	return nil
}

func (c *Cluster) releaseInTurn(ctx context.Context, k *keeper) error {
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if k.released {
		return nil
	}
	k.halt()
	err := k.release(ctx)
	k.released = err == nil
	c.outage.givesUp(k.name)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.keepers, k)
	return gaveUp(ctx, err)
}

// gaveUp adds why ctx has ended, if it has, to the error of the last try.
func gaveUp(ctx context.Context, last error) error {
	cause := context.Cause(ctx)
	switch {
	case last == nil || cause == nil:
		return last
	case errors.Is(last, ctx.Err()), errors.Is(last, cause):
		return cause
	}
	return fmt.Errorf("%w; the last try: %w", cause, last)
}

// Close implements highlander.Cluster. It returns within two fifths of the TTL,
// also if the server does not answer, or Release waits for it; leases that could
// not be released run out then, and the error says so.
func (c *Cluster) Close() error {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	keepers := slices.Collect(maps.Keys(c.keepers)) // release takes them out
	c.mu.Unlock()
	if !first {
		<-c.done
		return nil
	}
	defer close(c.done)
	defer time.AfterFunc(lastWords*c.requests.timeout, func() { c.giveUp(errGivenUp) }).Stop()
	c.close(highlander.ErrClosed)
	c.book.Close()
	err := c.releaseAll(keepers)
	c.calls.Wait()
	c.end()
	c.watching.Wait()
	c.mender.tasks.Wait()
	if c.requests.hangUp != nil {
		c.requests.hangUp()
	}
	return err
}

// releaseAll releases what was not released yet.
func (c *Cluster) releaseAll(keepers []*keeper) error {
	var all sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for _, k := range keepers {
		all.Go(func() {
			if err := c.release(c.parting, k); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
