package postgres

import "context"

// Crash ends the node as SIGKILL ends a process: the kernel closes its sockets,
// and nothing else is done.
func (c *Cluster) Crash() {
	c.mu.Lock()
	started := c.started
	c.mu.Unlock()
	c.node.crash.Store(true)
	if started {
		c.node.stop(context.Canceled)
		<-c.node.ended
	}
	c.reader.close()
}

// WithHash replaces the hash of ids.
func WithHash(hash func(string) uint64) Option { return func(c *config) { c.hash = hash } }
