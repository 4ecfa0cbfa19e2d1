package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"highlander"
)

const (
	// markReleased says that leases are over. A row that somebody has deleted is
	// made anew, so that the token is remembered.
	markReleased = `insert into $schema.leases as l (id, key, token, session, node, meta, since, ttl_ms, released)
		select id, key, token, 0, '', '', clock_timestamp(), 0, true from unnest($1::text[], $2::bigint[], $3::bigint[]) as done(id, key, token)
		on conflict (id) do update set released = true where l.token = excluded.token`

	unlock = `select pg_advisory_unlock(key) from unnest($1::bigint[]) as held(key)`

	// What is lost with it in a crash of the server is found out after a TTL.
	dontWaitForDisk = `select set_config('synchronous_commit', 'off', true)`
)

// giveBack tells the others which leases are over, and which claims were given up.
func (n *node) giveBack(ctx context.Context, s *session) error {
	var ids []string
	for id, h := range n.holds {
		if h.giveBack {
			ids = append(ids, id)
		}
	}
	for _, cl := range n.leaving {
		ids = append(ids, cl.id)
	}
	locked, left, err := n.lockedAmong(ctx, s, ids)
	if err != nil {
		return err
	}
	var done []*hold
	for id, h := range n.holds {
		if h.giveBack && !locked[id] {
			done = append(done, h)
		}
	}
	var leaving, staying []*claim
	for _, cl := range n.leaving {
		if locked[cl.id] {
			staying = append(staying, cl)
		} else {
			leaving = append(leaving, cl)
		}
	}
	if len(done)+len(leaving) == 0 {
		return left
	}
	b := s.newBatch()
	n.addGiveBack(b, done, leaving)
	if err := b.send(ctx); err != nil {
		n.noteLocked(err)
		return fmt.Errorf("release ids: %w", err)
	}
	n.leaving = staying
	for _, h := range done {
		n.c.log.Debug("released", "id", h.id, "token", h.token)
		delete(n.holds, h.id)
		if known := n.known[h.id]; known != nil && known.token == h.token {
			known.open = false
		}
		for _, waiting := range h.waiting {
			waiting <- nil
		}
	}
	n.forget()
	return left
}

func (n *node) addGiveBack(b *batch, done []*hold, leaving []*claim) {
	slices.SortFunc(done, func(x, y *hold) int { return cmp.Compare(x.id, y.id) })
	var ids []string
	var keys, tokens, locked, seats []int64
	for _, h := range done {
		ids = append(ids, h.id)
		keys = append(keys, h.key)
		tokens = append(tokens, h.token)
		if h.locked {
			locked = append(locked, h.key)
		}
	}
	touched := slices.Clone(ids)
	for _, cl := range leaving {
		touched = append(touched, cl.id)
		seats = append(seats, cl.seat)
	}
	b.add(dontWaitForDisk)
	b.add(lockRows, slices.Compact(slices.Sorted(slices.Values(touched))))
	b.add(markReleased, ids, keys, tokens)
	b.add(leaveQueues, b.s.number, seats)
	b.add(unlock, locked)
	b.add(callFirst, touched, n.c.channel())
}

var errRanOut = errors.New("the server did not answer before the lease has run out")

// release tells the others that the child has stopped. Whatever becomes of this
// call, the node goes on trying to.
func (n *node) release(ctx context.Context, h *hold) error {
	done := make(chan error, 1)
	n.do(func() {
		if n.holds[h.id] != h { // the time for the child was over
			done <- nil
			return
		}
		h.giveBack = true
		h.waiting = append(h.waiting, done)
	})
	ranOut := time.NewTimer(max(n.c.opTimeout(), h.lease.Until()-n.clock()))
	defer ranOut.Stop()
	select {
	case err := <-done:
		return err
	case <-n.ended:
		return highlander.ErrClosed
	case <-ranOut.C:
		return fmt.Errorf("postgres: release %q: %w", h.id, errRanOut)
	case <-ctx.Done():
		return fmt.Errorf("postgres: release %q: %w", h.id, context.Cause(ctx))
	}
}
