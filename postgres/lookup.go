package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"highlander"
)

// Member is a node of the cluster.
type Member struct {
	Name  string    // Cluster.Node of that node
	Since time.Time // when its session began, by the clock of the server
}

const (
	// A lease whose session is not renewed is shown until it has run out, by the
	// clock of the server. That is for people; nobody starts anything by it.
	selectHolders = `select l.id, l.node, l.meta, l.token, l.since from $schema.leases l join $schema.nodes n using (session)
		where not l.released and n.beat_at + n.ttl_ms * interval '1 ms' > clock_timestamp()`

	selectMembers = `select name, since from $schema.nodes where beat_at + ttl_ms * interval '1 ms' > clock_timestamp() order by name`
)

// Lookup implements highlander.Cluster. It takes the right to read, no more.
func (c *Cluster) Lookup(ctx context.Context, id string) (highlander.Holder, error) {
	if err := highlander.ValidateID(id); err != nil {
		return highlander.Holder{}, fmt.Errorf("postgres: lookup: %w", err)
	}
	found, err := read(ctx, c, selectHolders+" and l.id = $1", scanHolder, id)
	switch {
	case err != nil:
		return highlander.Holder{}, fmt.Errorf("postgres: lookup %q: %w", id, err)
	case len(found) == 0:
		return highlander.Holder{}, highlander.ErrNotHeld
	}
	return found[0], nil
}

// Holders implements highlander.Cluster. It takes the right to read, no more.
func (c *Cluster) Holders(ctx context.Context) ([]highlander.Holder, error) {
	found, err := read(ctx, c, selectHolders, scanHolder)
	if err != nil {
		return nil, fmt.Errorf("postgres: holders: %w", err)
	}
	slices.SortFunc(found, func(a, b highlander.Holder) int { return strings.Compare(a.ID, b.ID) })
	return found, nil
}

func scanHolder(row pgx.CollectableRow) (h highlander.Holder, err error) {
	var token int64
	err = row.Scan(&h.ID, &h.Node, &h.Meta, &token, &h.Since)
	h.Token = uint64(token)
	return h, err
}

// Members returns the nodes that have a session, sorted by name. It takes the
// right to read, no more. A node has one from its first Acquire on.
func (c *Cluster) Members(ctx context.Context) ([]Member, error) {
	found, err := read(ctx, c, selectMembers, func(row pgx.CollectableRow) (m Member, err error) {
		err = row.Scan(&m.Name, &m.Since)
		return m, err
	})
	if err != nil {
		return nil, fmt.Errorf("postgres: members: %w", err)
	}
	return found, nil
}

// read runs a query, in the session of the node if there has been an Acquire.
// Where there are no tables, there is nothing to be found.
func read[T any](ctx context.Context, c *Cluster, sql string, scan pgx.RowToFunc[T], args ...any) ([]T, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var result []T // read only when it is there: the question may outlive this call
	query := func(ctx context.Context, conn *pgx.Conn) error {
		rows, _ := conn.Query(ctx, inSchema(c.c.schema, sql), args...) // the error is that of the rows
		all, err := pgx.CollectRows(rows, scan)
		if schemaIsGone(err) {
			return nil
		}
		result = all
		return err
	}
	c.mu.Lock()
	started, closed := c.started, c.closed
	c.mu.Unlock()
	var err error
	switch {
	case closed:
		return nil, highlander.ErrClosed
	case started:
		err = c.node.ask(ctx, query)
	default:
		err = c.reader.ask(ctx, query)
	}
	if err != nil {
		return nil, err
	}
	return result, nil
}

// reader is the connection of a cluster that has not acquired anything.
type reader struct {
	c    *config
	turn chan struct{} // has one element while nobody uses conn
	conn *pgx.Conn

	closing sync.Once
	closed  chan struct{}
}

func newReader(c *config) *reader {
	r := &reader{c: c, turn: make(chan struct{}, 1), closed: make(chan struct{})}
	r.turn <- struct{}{}
	return r
}

func (r *reader) ask(ctx context.Context, ask func(context.Context, *pgx.Conn) error) error {
	select {
	case <-r.turn:
	case <-r.closed:
		return highlander.ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { r.turn <- struct{}{} }()
	if r.conn == nil || r.conn.IsClosed() {
		conn := r.c.conn.Copy()
		if r.c.before != nil {
			if err := r.c.before(ctx, conn); err != nil {
				return fmt.Errorf("BeforeConnect of the pool: %w", err)
			}
		}
		r.c.shareTime(conn)
		conn.DefaultQueryExecMode = pgx.QueryExecModeExec // it may be pooled by transaction
		var err error
		if r.conn, err = pgx.ConnectConfig(ctx, conn); err != nil {
			return err
		}
	}
	return ask(ctx, r.conn)
}

func (r *reader) close() {
	r.closing.Do(func() {
		close(r.closed)
		<-r.turn // whoever uses it has a context of its own
		if r.conn != nil {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = r.conn.Close(ctx)
			<-r.conn.PgConn().CleanupDone()
		}
	})
}
