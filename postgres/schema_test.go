package postgres_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"highlander"
	"highlander/postgres"
	"highlander/postgres/postgrestest"
)

func TestTablesAreMadeByWhoeverIsFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharedServer(t), forever)
	var all errgroup.Group
	for i := range 8 {
		c := w.open(w.server.URL(), fmt.Sprint("node", i))
		all.Go(func() error {
			_, err := c.Acquire(t.Context(), fmt.Sprint("id", i), highlander.AcquireOptions{})
			return err
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	if w.log.has("level=WARN") {
		t.Error("a node has warned of what it had to expect")
	}
}

// role makes a user that may do nothing but connect, and returns its URL.
func (w *world) role(name string) string {
	w.Helper()
	w.adminExec(fmt.Sprintf("create role %s login password '%s'", name, postgrestest.Password))
	return strings.Replace(w.server.URL(), postgrestest.User+":", name+":", 1)
}

func TestRightsThatAreMissingAreWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, startServer(t), forever)
	waiter := w.start(w.open(w.role("poor"), "node"), "id")
	w.logs(`postgres.Schema(\"` + w.schema + `\")`)
	waiter.stillWaits()

	// As docs/postgres.md has it.
	w.adminExec(postgres.Schema(w.schema))
	w.adminExec(`grant usage on schema $schema to poor; grant select, insert, update, delete on all tables in schema $schema to poor`)
	w.isHeld(waiter.lease())
	w.logs("there is a session at the server again")

	w.role("reader")
	w.adminExec(`grant usage on schema $schema to reader; grant select on all tables in schema $schema to reader`)
	status := w.open(strings.Replace(w.server.URL(), postgrestest.User+":", "reader:", 1), "status")
	holders, err := status.Holders(t.Context())
	if err != nil || len(holders) != 1 || holders[0].ID != "id" {
		t.Errorf("Holders: %v, %v; want the one of id", holders, err)
	}
	members, err := status.Members(t.Context())
	if err != nil || len(members) != 1 || members[0].Name != w.nodes[0].Node() {
		t.Errorf("Members: %v, %v; want the one node", members, err)
	}
}

func TestStatusOfNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharedServer(t), forever)
	c := w.open(w.server.URL(), "status")
	if holders, err := c.Holders(t.Context()); err != nil || len(holders) != 0 {
		t.Errorf("Holders where there are no tables: %v, %v", holders, err)
	}
	if n := w.admin("select count(*) from pg_namespace where nspname = $1", w.schema); n != 0 {
		t.Error("who only looks has made the schema")
	}
}

// Two connections, however many ids there are; and none of the pool.
func TestNodeHasTwoConnectionsOfItsOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, startServer(t), forever)
	cfg, err := pgxpool.ParseConfig(strings.Replace(w.server.URL(), postgrestest.Password, "wrong", 1))
	if err != nil {
		t.Fatal(err)
	}
	cfg.BeforeConnect = func(_ context.Context, conn *pgx.ConnConfig) error {
		conn.Password = postgrestest.Password // that of today
		return nil
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	c, err := postgres.New(pool, postgres.WithSchema(w.schema), postgres.WithLogger(w.logger("node")))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	var all errgroup.Group
	for i := range 1000 {
		all.Go(func() error {
			_, err := c.Acquire(t.Context(), fmt.Sprint("id", i), highlander.AcquireOptions{})
			return err
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	if holders, err := c.Holders(t.Context()); err != nil || len(holders) != 1000 {
		t.Errorf("%d holders, %v", len(holders), err)
	}
	if n := w.admin("select count(*) from pg_stat_activity where usename = 'app'"); n != 2 {
		t.Errorf("%d connections for 1000 ids; want 2", n)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := pool.Ping(t.Context()); err != nil {
		t.Errorf("the pool, after Close of the cluster: %v", err)
	}
	w.eventually("nothing is left at the server", func() bool {
		return w.admin("select (select count(*) from pg_locks where locktype = 'advisory') + (select count(*) from $schema.nodes) + (select count(*) from $schema.leases where not released)") == 0
	})
}
