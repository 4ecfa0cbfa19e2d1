package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"highlander/internal/retry"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
)

var (
	errWatchStalled = errors.New("the watch does not answer")
	errWatchClosed  = errors.New("the watch was closed")
)

// keepWatching keeps the view up to date until Close. A watch that has ended goes
// on where it was: all nodes lose theirs at once when a leader fails, and all of
// them reading all keys is the last thing that the next leader needs.
func (c *Cluster) keepWatching() {
	defer c.tasks.Done()
	var at position
	for wait := newBackoff(); c.ctx.Err() == nil; {
		started := now()
		err := c.watchFrom(&at)
		if now()-started > c.cfg.ttl {
			wait.Reset()
		}
		if c.ctx.Err() == nil {
			c.log.Debug("the watch has ended; going on", "error", err)
			wait.Sleep(c.ctx)
		}
	}
}

// position is up to where the view has everything; zero: it has to be read.
type position struct {
	etcd     uint64 // id of the etcd cluster, whose revisions these are
	revision int64
}

// watchFrom reads all keys if that has to be, and watches until it fails. After
// most failures they have to be read again: etcd may have compacted what it was to
// tell, or know a password no more, which a request that is no watch mends.
func (c *Cluster) watchFrom(at *position) error {
	if *at == (position{}) {
		select {
		case <-c.loaded: // again: others may have to at the same moment
			retry.Sleep(c.ctx, rand.N(c.cfg.ttl/8))
		default:
		}
		var err error
		if *at, err = c.load(); err != nil {
			return err
		}
		select {
		case <-c.loaded:
		default:
			close(c.loaded)
		}
	}
	err := c.watch(at)
	switch {
	case errors.Is(err, rpctypes.ErrNoLeader), errors.Is(err, errWatchStalled), errors.Is(err, errWatchClosed):
	default:
		*at = position{}
	}
	return err
}

// load reads all keys into the view. That is where a watch begins that has missed
// something, as when etcd has compacted what it was to tell.
func (c *Cluster) load() (position, error) {
	var resp *clientv3.GetResponse
	err := c.try(c.ctx, 2*c.requestTimeout(), func(ctx context.Context, client *clientv3.Client) (err error) {
		resp, err = client.Get(ctx, c.keys.all(), clientv3.WithPrefix())
		return err
	})
	if err != nil {
		return position{}, fmt.Errorf("read the keys: %w", err)
	}
	c.log.Debug("read all keys", "keys", len(resp.Kvs), "revision", resp.Header.Revision)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.examine(c.view.load(resp.Kvs, resp.Header.Revision, now()))
	return position{resp.Header.ClusterId, resp.Header.Revision}, nil
}

// watch takes what is written after a position into the view until the watch fails.
// A member that has no leader ends it. As a member, or the way to it, may hang,
// the watch is asked for a sign of life as often as the lease is renewed.
func (c *Cluster) watch(at *position) error {
	client, err := c.conn.get(c.ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(c.ctx))
	defer cancel()
	// A stream of its own: what we ask of it is not for the program's watches.
	ctx = metadata.AppendToOutgoingContext(ctx, "highlander", c.name)
	hangs := time.AfterFunc(2*c.terms.Every, cancel)
	events := client.Watch(ctx, c.keys.all(), clientv3.WithPrefix(), clientv3.WithRev(at.revision+1))
	if !hangs.Stop() {
		return errWatchStalled
	}
	ask := time.NewTicker(c.terms.Every)
	defer ask.Stop()
	unanswered := 0 // questions since the last sign of life
	for {
		select {
		case resp, ok := <-events:
			if !ok {
				return errWatchClosed
			}
			if err := at.follow(resp); err != nil {
				return err
			}
			unanswered = 0
			c.take(resp.Events)
			at.passed(resp)
		case <-ask.C:
			if unanswered >= 2 {
				return errWatchStalled
			}
			unanswered++
			if err := client.RequestProgress(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// follow checks that an answer goes on from the position. It does not where etcd
// was restored from a backup.
func (at *position) follow(resp clientv3.WatchResponse) error {
	if err := resp.Err(); err != nil {
		return err
	}
	if etcd, revision := resp.Header.GetClusterId(), resp.Header.GetRevision(); etcd != at.etcd || revision < at.revision {
		return fmt.Errorf("etcd %x is at revision %d, and %x was at %d", etcd, revision, at.etcd, at.revision)
	}
	return nil
}

// passed moves on behind what an answer has told. The revision in the header of
// events is the server's, which may have more to tell.
func (at *position) passed(resp clientv3.WatchResponse) {
	if n := len(resp.Events); n > 0 {
		at.revision = resp.Events[n-1].Kv.ModRevision
	} else if resp.IsProgressNotify() {
		at.revision = resp.Header.Revision
	}
}

func (c *Cluster) take(events []*clientv3.Event) {
	if len(events) == 0 {
		return
	}
	var list []event
	for _, ev := range events {
		list = append(list, event{kv: ev.Kv, deleted: ev.Type == clientv3.EventTypeDelete})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.examine(c.view.apply(list, now()))
}

// examine looks at what has happened to the ids of this process's claims. The
// caller has the lock.
func (c *Cluster) examine(ids []string) {
	c.checkSession()
	for _, id := range ids {
		e := c.view.id(id)
		for _, cl := range c.claims[id] {
			cl.examine(e)
		}
		c.sweep(e)
	}
	for lease := range c.view.dead(ids) {
		if c.sessions[lease] == nil && !c.collecting[lease] && !c.closed {
			c.collecting[lease] = true
			c.spawn(func() { c.collect(lease) })
		}
	}
}
