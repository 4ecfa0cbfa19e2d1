package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
)

var errWatchStalled = errors.New("the watch does not answer")

// keepWatching keeps the view up to date until Close.
func (c *Cluster) keepWatching() {
	defer c.tasks.Done()
	loaded := sync.OnceFunc(func() { close(c.loaded) })
	for wait := (backoff{}); c.ctx.Err() == nil; {
		revision, err := c.load()
		if err == nil {
			loaded()
			started := now()
			err = c.watch(revision)
			if now()-started > c.cfg.ttl {
				wait = backoff{}
			}
		}
		if c.ctx.Err() == nil {
			c.log.Debug("the watch has ended; beginning anew", "error", err)
			wait.sleep(c.ctx)
		}
	}
}

// load reads all keys into the view. That is where a watch begins that has missed
// something, as when etcd has compacted what it was to tell.
func (c *Cluster) load() (revision int64, err error) {
	var resp *clientv3.GetResponse
	err = c.try(c.ctx, 2*c.requestTimeout(), func(ctx context.Context, client *clientv3.Client) (err error) {
		resp, err = client.Get(ctx, c.keys.all(), clientv3.WithPrefix())
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("read the keys: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.examine(c.view.load(resp.Kvs, resp.Header.Revision, now()))
	return resp.Header.Revision, nil
}

// watch takes what is written after revision into the view until the watch fails.
// A member that has no leader ends it. As a member, or the way to it, may hang,
// the watch is asked for a sign of life as often as the lease is renewed.
func (c *Cluster) watch(revision int64) error {
	client, err := c.conn.get()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(c.ctx))
	defer cancel()
	// A stream of its own: what we ask of it is not for the program's watches.
	ctx = metadata.AppendToOutgoingContext(ctx, "highlander", c.name)
	events := client.Watch(ctx, c.keys.all(), clientv3.WithPrefix(), clientv3.WithRev(revision+1))
	ask := time.NewTicker(c.terms.Every)
	defer ask.Stop()
	unanswered := 0 // questions since the last sign of life
	for {
		select {
		case resp, ok := <-events:
			if !ok {
				return errors.New("the watch was closed")
			}
			if err := resp.Err(); err != nil {
				return err
			}
			unanswered = 0
			c.take(resp.Events)
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
