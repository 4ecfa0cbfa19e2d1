package postgres

import (
	"sync"
)

// inbox is what the goroutine is to do.
type inbox struct {
	mu     sync.Mutex
	todo   []func()
	closed bool
	wake   chan struct{}
}

// do has f called by the goroutine, and reports false if that has ended.
func (n *node) do(f func()) bool {
	n.inbox.mu.Lock()
	defer n.inbox.mu.Unlock()
	if n.inbox.closed {
		return false
	}
	n.inbox.todo = append(n.inbox.todo, f)
	select {
	case n.inbox.wake <- struct{}{}:
	default:
	}
	return true
}

func (n *node) doAll() {
	n.inbox.mu.Lock()
	todo := n.inbox.todo
	n.inbox.todo = nil
	n.inbox.mu.Unlock()
	for _, f := range todo {
		f()
	}
}
