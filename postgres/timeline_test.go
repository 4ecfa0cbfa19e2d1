package postgres_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"highlander/postgres/postgrestest"
)

// startForFailOver starts a server for failOver.
func startForFailOver(t *testing.T) *postgrestest.Server {
	return startServer(t, "restore_command = 'false'", "hot_standby = off")
}

// failOver has a server crash, and go on as one that was promoted does: on a timeline
// of its own.
func (w *world) failOver() {
	w.Helper()
	var data string
	w.asAdmin(func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "show data_directory").Scan(&data)
	})
	if err := w.server.Crash(); err != nil {
		w.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "recovery.signal"), nil, 0o600); err != nil {
		w.Fatal(err)
	}
	if err := w.server.StartAgain(); err != nil {
		w.Fatal(err)
	}
}

// What was granted right before a fail-over, and not replicated, is not there on the
// new primary: its row says that an older lease is over.
func TestLeaseThatAFailOverHasForgottenIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, startForFailOver(t), 2*time.Second)
	behind, before := w.newProxy(), w.newProxy()
	holder := w.open(w.behind(behind), "holder")
	older := w.acquire(holder, "id")
	again := w.queue(holder, "id")
	next := w.queue(w.open(w.behind(before), "next"), "id")
	w.release(older)
	l := again.lease() // next has heard nothing of it
	behind.Close()
	before.Cut()
	w.failOver()
	w.adminExec("update $schema.leases set token = $1, released = true", strconv.FormatUint(older.Token(), 10))
	before.Mend()
	after := next.lease()
	if early := time.Until(l.Expires()); early > 0 {
		t.Errorf("given out %v before the lease has run out that the server has forgotten", early)
	}
	if after.Token() <= l.Token() {
		t.Errorf("token %d after %d", after.Token(), l.Token())
	}
	w.logs("another server has taken over")
}

// A restart forgets nothing that it had said.
func TestRestartIsNoFailOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, startServer(t), forever)
	l := w.acquire(w.open(w.server.URL(), "holder"), "id")
	next := w.queue(w.open(w.server.URL(), "next"), "id")
	if err := w.server.Restart(); err != nil {
		t.Fatal(err)
	}
	w.eventually("both are back", func() bool { return w.ringIsClosed(2) })
	w.release(l)
	next.lease()
}
