package highlandertest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"highlander"
)

// node is one process of the cluster. Its fields are guarded by cluster.mu.
type node struct {
	cluster *Cluster
	base    string // the name the test gave it
	name    string // unique per start

	frozen  bool
	crashed bool
	closed  bool
	claims  map[*claim]bool // that have not ended
}

// Node returns the unique name.
func (n *node) Node() string { return n.name }

// Acquire waits in the queue of id.
func (n *node) Acquire(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
	if err := cmp.Or(highlander.ValidateID(id), opts.Validate()); err != nil {
		return nil, fmt.Errorf("highlandertest: acquire: %w", err)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	cl, err := n.claim(id, opts)
	if err != nil {
		return nil, err
	}
	select {
	case <-cl.granted:
	case <-cl.done:
	case <-ctx.Done():
	}
	return n.outcome(ctx, cl)
}

// claim makes a claim. That of a crashed node waits for ever, as no side has it.
func (n *node) claim(id string, opts highlander.AcquireOptions) (*claim, error) {
	c := n.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	if n.closed {
		return nil, highlander.ErrClosed
	}
	c.lastSeq++
	cl := newClaim(n, c.lastSeq, id, opts)
	n.claims[cl] = true
	c.enter(cl)
	return cl, nil
}

// outcome is what a wait came to. The end of ctx goes before a lease, so that
// the same test ends the same way each time.
func (n *node) outcome(ctx context.Context, cl *claim) (highlander.Lease, error) {
	c := n.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case n.closed:
		return nil, highlander.ErrClosed
	case ctx.Err() != nil:
		cl.end(context.Cause(ctx))
		c.leave(cl)
		return nil, context.Cause(ctx)
	}
	return cl, nil
}

// Lookup tells what this node knows of id.
func (n *node) Lookup(ctx context.Context, id string) (highlander.Holder, error) {
	if err := highlander.ValidateID(id); err != nil {
		return highlander.Holder{}, fmt.Errorf("highlandertest: lookup: %w", err)
	}
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	if err := n.usable(ctx); err != nil {
		return highlander.Holder{}, err
	}
	if ct := n.cluster.contests[id]; ct != nil {
		if cl := ct.views[n].holder; cl != nil {
			return cl.holder(), nil
		}
	}
	return highlander.Holder{}, highlander.ErrNotHeld
}

// Holders tells what this node knows of all ids.
func (n *node) Holders(ctx context.Context) ([]highlander.Holder, error) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	if err := n.usable(ctx); err != nil {
		return nil, err
	}
	var holders []highlander.Holder
	for _, ct := range n.cluster.contests {
		if cl := ct.views[n].holder; cl != nil {
			holders = append(holders, cl.holder())
		}
	}
	slices.SortFunc(holders, func(a, b highlander.Holder) int { return cmp.Compare(a.ID, b.ID) })
	return holders, nil
}

// usable reports why this node cannot be asked.
func (n *node) usable(ctx context.Context) error {
	if n.closed || n.crashed {
		return highlander.ErrClosed
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// Close ends what this node has and takes it out of the cluster.
func (n *node) Close() error {
	c := n.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	if n.closed {
		return nil
	}
	n.closed = true
	bySeq := func(a, b *claim) int { return cmp.Compare(a.seq, b.seq) }
	for _, cl := range slices.SortedFunc(maps.Keys(n.claims), bySeq) {
		cl.end(highlander.ErrClosed)
	}
	c.drop(n)
	return nil
}
