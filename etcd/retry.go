package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"highlander/internal/retry"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// connection is the client: the program's, or one that is made when it is needed
// first. Making it can fail for want of a server, as a password is exchanged for
// a token.
type connection struct {
	dial func(context.Context) (*clientv3.Client, error) // nil: the client is the program's

	turn   chan struct{} // who has put something in has the following
	client *clientv3.Client
	closed bool
}

var errConnectionClosed = errors.New("the connection is closed")

func newConnection(client *clientv3.Client, dial func(context.Context) (*clientv3.Client, error)) *connection {
	return &connection{client: client, dial: dial, turn: make(chan struct{}, 1)}
}

// get returns the client. If ctx ends before there is one, the error is its cause.
func (c *connection) get(ctx context.Context) (*clientv3.Client, error) {
	select {
	case c.turn <- struct{}{}: // not a mutex: another one may be dialing
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer c.end()
	if c.closed {
		return nil, errConnectionClosed
	}
	if c.client == nil {
		client, err := c.dial(ctx)
		if err != nil {
			return nil, err
		}
		c.client = client
	}
	return c.client, nil
}

func (c *connection) end() { <-c.turn }

// renew makes a new client the next time, with the password that is in the file
// then. The program's client is left alone.
func (c *connection) renew(old *clientv3.Client) {
	c.turn <- struct{}{}
	defer c.end()
	if c.dial == nil || c.client != old || c.closed {
		return
	}
	c.client.Close()
	c.client = nil
}

func (c *connection) close() error {
	c.turn <- struct{}{}
	defer c.end()
	c.closed = true
	if c.dial == nil || c.client == nil {
		return nil
	}
	return c.client.Close()
}

// dial returns a client, with a token where there is a password. If ctx ends before,
// the error is its cause; afterwards it does not matter to the client.
func dial(ctx context.Context, cfg clientv3.Config) (*clientv3.Client, error) {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	cfg.Context = life
	stop := context.AfterFunc(ctx, end)
	client, err := clientv3.New(cfg)
	if !stop() {
		if err == nil {
			client.Close()
		}
		return nil, context.Cause(ctx)
	}
	if err != nil {
		end()
	}
	why, _ := ctx.Value(reasonKey{}).(*reason)
	return client, noAnswer(cfg.Endpoints, err, why)
}

type request func(context.Context, *clientv3.Client) error

// try makes a request once, for a limited time.
func (c *Cluster) try(ctx context.Context, limit time.Duration, do request) error {
	why := &reason{}
	ctx = context.WithValue(ctx, reasonKey{}, why)
	client, err := c.conn.get(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err = noAnswer(client.Endpoints(), clientv3.ContextError(ctx, do(ctx, client)), why)
	if errors.Is(err, rpctypes.ErrAuthFailed) {
		c.conn.renew(client)
	}
	return err
}

// silence is the error of a request that nobody has answered in time.
type silence struct {
	endpoints []string
	why       string // empty: not known
	err       error
}

func (s *silence) Error() string {
	text := fmt.Sprintf("no answer from %s: %v", strings.Join(s.endpoints, ", "), s.err)
	if s.why != "" {
		text += ": " + s.why
	}
	return text
}

func (s *silence) Unwrap() error { return s.err }

// noAnswer says who was asked if nobody has answered, and why, if that is known.
func noAnswer(endpoints []string, err error, why *reason) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &silence{endpoints, why.get(), err}
}

// reason is why a server could not be reached, be it that a connection was refused
// or that TLS did not come about. The client keeps that to itself: it tries until
// time is up.
type reason struct {
	mu   sync.Mutex
	text string
}

type reasonKey struct{} // of the reason in a context

func (r *reason) get() string {
	if r == nil {
		return ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text
}

// balancerError is what the message of gRPC begins with when time was up before
// there was a connection. What follows is why.
const balancerError = "latest balancer error: "

// noteReason is the innermost interceptor of the client: it sees each try.
func noteReason(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, cc, opts...)
	text, ok := strings.CutPrefix(status.Convert(err).Message(), balancerError)
	if r, asked := ctx.Value(reasonKey{}).(*reason); asked && (ok || status.Code(err) == codes.Unavailable) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.text = text
	}
	return err
}

// insist makes a request until it succeeds, is not permitted, or ctx ends; the
// error is then its cause, and that of the last try that has failed for another
// reason. It is for requests that may be made twice: an answer may be lost.
func (c *Cluster) insist(ctx context.Context, do request) error {
	var last error
	for wait := newBackoff(); ; {
		err := c.try(ctx, c.requestTimeout(), do)
		if err == nil || errors.Is(err, rpctypes.ErrPermissionDenied) {
			return err
		}
		var silent *silence
		if ctx.Err() == nil || errors.As(err, &silent) && silent.why != "" {
			last = err
		}
		c.log.Debug("etcd: a request has failed", "error", err)
		if !wait.Sleep(ctx) {
			return gaveUp(ctx, last)
		}
	}
}

// gaveUp returns the cause of the end of ctx, with the error of the last try that
// is another, if there was one.
func gaveUp(ctx context.Context, last error) error {
	if last == nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w; the last try: %w", context.Cause(ctx), last)
}

// requestTimeout is how long a request may take before it is made again, perhaps
// to another member.
func (c *Cluster) requestTimeout() time.Duration {
	return min(max(c.cfg.ttl/4, time.Second), 5*time.Second)
}

// newBackoff returns the pauses between tries.
func newBackoff() retry.Backoff { return retry.Backoff{First: 20 * time.Millisecond, Max: time.Second} }
