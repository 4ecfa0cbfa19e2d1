package postgres_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Together, they take longer than a session may be without an answer.
func TestManySlowQuestionsCostNoSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharedServer(t), 12*time.Second)
	c := w.open(w.server.URL(), "node")
	l := w.acquire(c, "id")
	const questions = 40
	var asking sync.WaitGroup
	var answered atomic.Int32
	for range questions {
		asking.Go(func() {
			if _, err := c.Ask(t.Context(), "select pg_sleep(0.1)::text"); err != nil {
				t.Error(err)
			}
			answered.Add(1)
		})
	}
	w.eventually("they are answered", func() bool { return answered.Load() > 0 })
	w.acquire(c, "another id")
	if answered.Load() == questions {
		t.Error("nothing else was done before all questions were answered")
	}
	asking.Wait()
	w.isHeld(l)
	if w.log.has("no session at the server") {
		t.Error("the session was lost")
	}
}
