package postgres

import (
	"maps"
	"time"
)

// memory is what a node knows of the last lease of an id that it waits for. If its
// row is gone, somebody has deleted it; that says nothing about its child, which
// may run for a TTL.
type memory struct {
	token int64
	open  bool // it was not released when it was seen last
	ttl   time.Duration
	gone  time.Duration // when an older row was seen in its place; zero if that was not
}

// see takes in the row of an id, read at that time. The TTL is never less than that
// of this node: see peer.
func (m *memory) see(r row, now, own time.Duration) {
	switch {
	case r.token >= m.token:
		*m = memory{token: r.token, open: !r.released, ttl: max(r.ttl, m.ttl, own)}
	case m.gone == 0:
		m.gone = now
	}
}

// vanish takes in that there is no row. Whoever had the lease then has its child
// stopped when a TTL has passed.
func (m *memory) vanish(now, own time.Duration) {
	m.ttl = max(m.ttl, own)
	m.token, m.open, m.gone = max(m.token, 1), true, now // a row that is made anew has token 0
}

// floor is a token that the next one has to be larger than.
func (m *memory) floor() int64 {
	if m == nil {
		return 0
	}
	return m.token
}

// least is the token that a row has to have for the lease before to be over.
func (m *memory) least(now time.Duration) int64 {
	if m == nil || !m.open || m.gone != 0 && now >= m.gone+m.ttl {
		return 0
	}
	return m.token
}

// remember notes tokens that others have had.
func (n *node) remember(rows []row) {
	now := n.clock()
	for _, r := range rows {
		if n.known[r.id] == nil {
			n.known[r.id] = &memory{}
		}
		n.known[r.id].see(r, now, n.c.ttl)
	}
}

// missed notes that the rows of ids are gone that this node waits for.
func (n *node) missed(ids []string) {
	now := n.clock()
	for _, id := range ids {
		if n.known[id] == nil {
			n.known[id] = &memory{}
		}
		n.known[id].vanish(now, n.c.ttl)
	}
}

// forget drops what is not needed any more.
func (n *node) forget() {
	needed := map[string]bool{}
	for _, cl := range n.claims {
		needed[cl.id] = true
	}
	maps.DeleteFunc(n.known, func(id string, _ *memory) bool { return n.holds[id] == nil && !needed[id] })
}
