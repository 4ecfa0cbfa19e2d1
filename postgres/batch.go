package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// batch are statements of one transaction and what to do with their results.
type batch struct {
	s     *session
	batch pgx.Batch
}

func (s *session) newBatch() *batch { return &batch{s: s} }

func (b *batch) add(sql string, args ...any) *pgx.QueuedQuery {
	return b.batch.Queue(inSchema(b.s.c.schema, sql), args...)
}

// send carries the batch out. What its functions were given counts only if there
// is no error: before that, it may be rolled back.
func (b *batch) send(ctx context.Context) error {
	b.s.warned.Store(false)
	ctx, cancel := context.WithTimeout(ctx, b.s.c.opTimeout())
	defer cancel()
	return b.s.work.SendBatch(ctx, &b.batch).Close()
}

// collect is for batch.add: it gathers the rows of one statement.
func collect[T any](q *pgx.QueuedQuery, into *[]T, scan func(pgx.Rows, *T) error) {
	q.Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var row T
			if err := scan(rows, &row); err != nil {
				return err
			}
			*into = append(*into, row)
		}
		return rows.Err()
	})
}
