package postgres

import (
	"context"
	"errors"

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

// AcrossANetwork has a node believe that there is a network between it and the
// server, but nothing else: no proxy.
func AcrossANetwork() Option { return func(c *config) { c.pretend = &link{direct: true} } }

// WasNotified reports whether a notification came not long ago.
func (c *Cluster) WasNotified() bool {
	answer := make(chan bool)
	c.node.do(func() {
		answer <- provoked(c.node.current.notedAt, c.node.clock()-answeredWithin/2)
	})
	return <-answer
}

// Channel is what the nodes listen on.
func (c *Cluster) Channel() string { return c.node.c.channel() }

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

// LoseSession ends the session of a node as an error in it does.
func (c *Cluster) LoseSession() {
	c.node.do(func() { c.node.current.ringErr = errors.New("lost, for a test") })
}

// BuryTooLate has a node end the session of another one as run out, at the heartbeat
// before the last: that one has renewed it after this one had looked.
func (c *Cluster) BuryTooLate(other *Cluster) error {
	buried := make(chan error, 1)
	c.node.do(func() {
		for _, p := range c.node.peers {
			if p.name == other.Node() {
				before := *p
				before.beat--
				buried <- c.node.bury(context.Background(), c.node.current, &before, false)
				return
			}
		}
		buried <- errors.New("it has not seen that node")
	})
	return <-buried
}
