package highlandertest

import (
	"fmt"
	"sync"

	"highlander"
)

// lease is a lease and where it comes from.
type lease struct {
	highlander.Lease
	id   string
	node highlander.Cluster
}

func (l *lease) String() string {
	return fmt.Sprintf("lease of %q at %s with token %d", l.id, l.node.Node(), l.Token())
}

// referee sees every lease that a script is given, and objects if two of an id
// are out at once or a token is not above all earlier ones.
type referee struct {
	mu     sync.Mutex
	held   map[string]*lease
	tokens map[string]uint64 // the largest so far
}

func newReferee() *referee {
	return &referee{held: map[string]*lease{}, tokens: map[string]uint64{}}
}

// enter is called as soon as Acquire has returned.
func (r *referee) enter(l *lease) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	other, last := r.held[l.id], r.tokens[l.id]
	r.held[l.id] = l
	r.tokens[l.id] = max(last, l.Token())
	switch {
	case other != nil:
		return fmt.Errorf("two holders: %v was given out while there is a %v (Err: %v)", l, other, other.Err())
	case l.Token() <= last:
		return fmt.Errorf("token does not grow: %v follows token %d", l, last)
	}
	return nil
}

// leave is called before Release, or whatever else ends the lease. It reports
// whether l was out.
func (r *referee) leave(l *lease) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held[l.id] != l {
		return false
	}
	delete(r.held, l.id)
	r.tokens[l.id] = max(r.tokens[l.id], l.Token())
	return true
}

// out returns the leases that were not left, of one node or (nil) of all.
func (r *referee) out(node highlander.Cluster) []*lease {
	r.mu.Lock()
	defer r.mu.Unlock()
	var leases []*lease
	for _, l := range r.held {
		if node == nil || l.node == node {
			leases = append(leases, l)
		}
	}
	return leases
}
