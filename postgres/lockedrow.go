package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// lockedRows are those that others have locked at this moment.
const lockedRows = `with free as materialized (select id from $schema.leases where id = any($1) for update skip locked)
	select id from $schema.leases where id = any($1) and id not in (select id from free)`

// errRowLocked is that somebody else has locked the row of an id, such as an administrator
// whose transaction is left open.
type errRowLocked struct{ id string }

func (e errRowLocked) Error() string {
	return fmt.Sprintf("somebody else has locked the row of the id %q", e.id)
}

// lockedAmong returns the ids whose rows others have locked, and an error that names one:
// but only after an attempt has failed by that, so that one row holds up no more than
// its id.
func (n *node) lockedAmong(ctx context.Context, s *session, ids []string) (locked map[string]bool, left, err error) {
	if !n.rowLocked || len(ids) == 0 {
		return nil, nil, nil
	}
	var found []string
	b := s.newBatch()
	collect(b.add(lockedRows, ids), &found, func(rows pgx.Rows, id *string) error { return rows.Scan(id) })
	if err := b.send(ctx); err != nil {
		return nil, nil, fmt.Errorf("look for locked rows: %w", err)
	}
	locked = map[string]bool{}
	for _, id := range found {
		locked[id], left = true, errRowLocked{id}
	}
	return locked, left, nil
}

// noteLocked notes that an attempt has failed.
func (n *node) noteLocked(err error) {
	if pgErr := (*pgconn.PgError)(nil); errors.As(err, &pgErr) && pgErr.Code == codeLockNotAvailable {
		n.rowLocked = true
	}
}
