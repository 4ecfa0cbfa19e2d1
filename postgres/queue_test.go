package postgres_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"highlander"
	"highlander/postgres"
)

func TestIDsWithTheSameHashAreSeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharedServer(t), forever)
	short := postgres.WithHash(func(name string) uint64 { return uint64(len(name)) })
	c := w.open(w.server.URL(), "node", short)
	l := w.acquire(c, "abc")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, c := range []*postgres.Cluster{c, w.open(w.server.URL(), "other", short)} {
		_, err := c.Acquire(ctx, "xyz", highlander.AcquireOptions{})
		if err == nil || !strings.Contains(err.Error(), `"xyz"`) || !strings.Contains(err.Error(), `"abc"`) {
			t.Errorf("error is %v; want one that names both ids", err)
		}
	}
	w.isHeld(l)
	w.acquire(c, "abcd")
	w.eventually("nobody is left in a queue", func() bool { return w.waiting("xyz") == 0 })
}

// Somebody has tidied up the row of a session that is dead, but not its place.
func TestPlaceOfASessionThatNobodyKnowsBlocksNoQueue(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharedServer(t), time.Second)
	c := w.open(w.server.URL(), "node")
	w.acquire(c, "another id")
	w.adminExec("insert into $schema.waiters (session, seat, id) values (4711, 1, 'id')")
	w.acquire(c, "id")
}
