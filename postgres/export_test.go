package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
)

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

// BreakWork closes the socket of the working connection, as a network may.
func (c *Cluster) BreakWork() {
	done := make(chan struct{})
	c.node.do(func() {
		c.node.current.wires.open[0].cut()
		close(done)
	})
	<-done
}

// Ask asks the server something in the session of the node, by its working or its
// ring's connection.
func (c *Cluster) Ask(ctx context.Context, sql string) (answer string, err error) {
	err = c.node.ask(ctx, func(ctx context.Context, conn *pgx.Conn) error { return conn.QueryRow(ctx, sql).Scan(&answer) })
	return answer, err
}
