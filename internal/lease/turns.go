package lease

import (
	"context"
	"slices"
	"sync"
)

// Turns puts the calls of Acquire in one process for one id in order: first come,
// first served, and only the first competes at the server. A turn lasts until the
// lease that comes of it is over. The zero value is ready; all methods may be
// called concurrently.
type Turns struct {
	mu     sync.Mutex
	queues map[string][]chan struct{} // by id; the first has its turn, and its channel is closed
}

// Take waits for the caller's turn, which lasts until end is called; end may be
// called again. If ctx ends before, the error is its cause.
func (t *Turns) Take(ctx context.Context, id string) (end func(), err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	turn := t.join(id)
	end = sync.OnceFunc(func() { t.leave(id, turn) })
	select {
	case <-turn:
		return end, nil
	case <-ctx.Done():
		end()
		return nil, context.Cause(ctx)
	}
}

func (t *Turns) join(id string) chan struct{} {
	turn := make(chan struct{})
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.queues == nil {
		t.queues = map[string][]chan struct{}{}
	}
	t.queues[id] = append(t.queues[id], turn)
	if len(t.queues[id]) == 1 {
		close(turn)
	}
	return turn
}

// leave takes a turn out of the queue. If it was the first, the next one begins.
func (t *Turns) leave(id string, turn chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	queue := t.queues[id]
	i := slices.Index(queue, turn)
	queue = slices.Delete(queue, i, i+1)
	t.queues[id] = queue
	switch {
	case len(queue) == 0:
		delete(t.queues, id)
	case i == 0:
		close(queue[0])
	}
}
