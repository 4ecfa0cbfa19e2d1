package etcd

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"highlander"
)

// Lookup implements highlander.Cluster. It asks etcd.
func (c *Cluster) Lookup(ctx context.Context, id string) (highlander.Holder, error) {
	if err := highlander.ValidateID(id); err != nil {
		return highlander.Holder{}, fmt.Errorf("look up: %w", err)
	}
	for last := int64(0); ; {
		r, err := c.readRecord(ctx, id)
		switch {
		case err != nil:
			return highlander.Holder{}, fmt.Errorf("look up %q: %w", id, err)
		case r.State != stateHeld || r.revision == last: // with its claim gone
			return highlander.Holder{}, fmt.Errorf("look up %q: %w", id, highlander.ErrNotHeld)
		}
		there, err := c.read(ctx, clientv3.OpGet(c.keys.claim(r.at)), clientv3.OpGet(c.keys.node(r.at.lease)))
		if err != nil {
			return highlander.Holder{}, fmt.Errorf("look up %q: %w", id, err)
		}
		if len(there.kvs) == 2 {
			return r.holder(), nil
		}
		last = r.revision
	}
}

// readRecord returns the record of id; without a State if there is none.
func (c *Cluster) readRecord(ctx context.Context, id string) (record, error) {
	found, err := c.read(ctx, clientv3.OpGet(c.keys.held(id)))
	if err != nil || len(found.kvs) == 0 {
		return record{}, err
	}
	r, err := parseRecord(id, found.kvs[0])
	if err != nil {
		return record{}, fmt.Errorf("the record under %s cannot be read: %w", c.keys.held(id), err)
	}
	return r, nil
}

// snapshot are keys as they were at one moment.
type snapshot struct {
	kvs      []*mvccpb.KeyValue
	revision int64
}

// read reads keys, all at one moment.
func (c *Cluster) read(ctx context.Context, gets ...clientv3.Op) (found snapshot, err error) {
	if c.ctx.Err() != nil {
		return found, highlander.ErrClosed
	}
	var resp *clientv3.TxnResponse
	err = c.insist(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
		resp, err = client.Txn(ctx).Then(gets...).Commit()
		return err
	})
	if err != nil {
		return found, err
	}
	found.revision = resp.Header.Revision
	for _, one := range resp.Responses {
		found.kvs = append(found.kvs, one.GetResponseRange().Kvs...)
	}
	return found, nil
}

// Holders implements highlander.Cluster. It asks etcd.
func (c *Cluster) Holders(ctx context.Context) ([]highlander.Holder, error) {
	all, err := c.read(ctx,
		clientv3.OpGet(c.keys.allHeld(), clientv3.WithPrefix()),
		clientv3.OpGet(c.keys.allClaims(), clientv3.WithPrefix()),
		clientv3.OpGet(c.keys.allNodes(), clientv3.WithPrefix(), clientv3.WithKeysOnly()))
	if err != nil {
		return nil, fmt.Errorf("list holders: %w", err)
	}
	seen := newView(c.keys, c.cfg.ttl)
	seen.load(all.kvs, all.revision, 0)
	var holders []highlander.Holder
	for _, id := range slices.Sorted(maps.Keys(seen.ids)) {
		if e := seen.ids[id]; e.record.State == stateHeld && e.holderIsThere() {
			holders = append(holders, e.record.holder())
		}
	}
	return holders, nil
}

// Member is a process that takes part in the cluster: it has called Acquire.
type Member struct {
	Name  string    // as in Holder.Node
	Since time.Time // by the clock of its host
}

// Members returns the processes that are there, sorted by name. One that was
// killed counts until its lease has run out.
func (c *Cluster) Members(ctx context.Context) ([]Member, error) {
	found, err := c.read(ctx, clientv3.OpGet(c.keys.allNodes(), clientv3.WithPrefix()))
	if err != nil {
		return nil, fmt.Errorf("list members: %w", err)
	}
	var members []Member
	for _, kv := range found.kvs {
		var n node
		if json.Unmarshal(kv.Value, &n) == nil {
			members = append(members, Member{Name: n.Name, Since: n.Since})
		}
	}
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return members, nil
}
