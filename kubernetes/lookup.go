package kubernetes

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"highlander"
)

// Lookup implements highlander.Cluster. It answers from what the node watches, or
// else asks the server.
func (c *Cluster) Lookup(ctx context.Context, id string) (highlander.Holder, error) {
	if err := highlander.ValidateID(id); err != nil {
		return highlander.Holder{}, err
	}
	if c.isClosed() {
		return highlander.Holder{}, highlander.ErrClosed
	}
	name := objectName(id)
	if c.watcher.live.Load() {
		if s, _ := c.store.look(name); s.object != nil && c.isHeld(s) && s.record.id == id {
			return s.record.asHolder(), nil
		}
		return highlander.Holder{}, highlander.ErrNotHeld
	}
	o, err := c.requests.get(ctx, name)
	if err != nil {
		return highlander.Holder{}, fmt.Errorf("kubernetes: look up %q: %w", id, err)
	}
	if o == nil || isForeign(o, id) || !readRecord(o).looksHeld() {
		return highlander.Holder{}, highlander.ErrNotHeld
	}
	return readRecord(o).asHolder(), nil
}

// Holders implements highlander.Cluster, as Lookup does.
func (c *Cluster) Holders(ctx context.Context) ([]highlander.Holder, error) {
	if c.isClosed() {
		return nil, highlander.ErrClosed
	}
	var holders []highlander.Holder
	if c.watcher.live.Load() {
		for _, s := range c.store.all() {
			if c.isHeld(s) {
				holders = append(holders, s.record.asHolder())
			}
		}
	} else {
		listed, err := c.requests.list(ctx)
		if err != nil {
			return nil, fmt.Errorf("kubernetes: list the holders: %w", err)
		}
		for i := range listed.objects {
			if r := readRecord(&listed.objects[i]); r.looksHeld() {
				holders = append(holders, r.asHolder())
			}
		}
	}
	slices.SortFunc(holders, func(a, b highlander.Holder) int { return cmp.Compare(a.ID, b.ID) })
	return holders, nil
}

func (c *Cluster) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// isHeld reports whether a lease has a holder and has not run out.
func (c *Cluster) isHeld(s state) bool {
	return s.record.isHeld() && c.store.clock() < s.free
}

func (r record) isHeld() bool { return r.id != "" && r.holder != "" && !r.settling }

// looksHeld is isHeld for a node that does not watch. It has to go by the clocks
// of others, to which it gives the length of a lease. Nothing but what is shown
// depends on it.
func (r record) looksHeld() bool {
	return r.isHeld() && time.Since(r.renewed) < 2*r.duration
}

func (r record) asHolder() highlander.Holder {
	return highlander.Holder{ID: r.id, Node: r.holder, Meta: r.meta, Token: r.token, Since: r.acquired}
}
