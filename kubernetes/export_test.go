package kubernetes

import "highlander"

// Crash ends a node as SIGKILL ends a process: it says nothing more to the server.
func (c *Cluster) Crash() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.end()
	c.close(highlander.ErrClosed)
	c.book.Close()
	c.calls.Wait()
	c.watching.Wait()
	c.mender.tasks.Wait()
	if c.requests.hangUp != nil {
		c.requests.hangUp()
	}
	close(c.done)
}

var (
	ObjectName = objectName
	IsOutdated = isOutdated
)

const (
	StartsAtOnce = startsAtOnce
	KeepsAtOnce  = keepsAtOnce
	MendsAtOnce  = mendsAtOnce
)

// Watches reports whether the node knows what happens without asking.
func (c *Cluster) Watches() bool { return c.watcher.live.Load() }

func (c *Cluster) Namespace() string { return c.namespace }
