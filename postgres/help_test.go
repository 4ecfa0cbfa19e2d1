package postgres_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"highlander/postgres"
	"highlander/postgres/postgrestest"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(processEnv); url != "" {
		runProcess(url)
		return
	}
	code := m.Run()
	if shared.server != nil {
		if err := shared.server.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// shared is the server of the tests that do nothing to it: each has a schema of
// its own.
var shared struct {
	sync.Once
	server *postgrestest.Server
	err    error
}

func sharedServer(t testing.TB) *postgrestest.Server {
	t.Helper()
	postgrestest.Need(t)
	shared.Do(func() { shared.server, shared.err = postgrestest.Start() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.server
}

var schemas atomic.Int64

// newSchema returns the name of one that was not used yet.
func newSchema() string { return fmt.Sprintf("highlander_%d", schemas.Add(1)) }

// world is a cluster at a server.
type world struct {
	*testing.T
	server *postgrestest.Server
	schema string
	ttl    time.Duration

	nodes []*postgres.Cluster
	log   *testLog
	after []func() // at the end, when the nodes are closed
}

// newWorld registers the cleanup of all that comes: what a test registers later
// runs earlier.
func newWorld(t *testing.T, server *postgrestest.Server, ttl time.Duration) *world {
	w := &world{T: t, server: server, schema: newSchema(), ttl: ttl, log: &testLog{t: t}}
	t.Cleanup(func() {
		for _, c := range w.nodes {
			_ = c.Close()
		}
		for _, end := range w.after {
			end()
		}
		w.log.stop()
	})
	return w
}

// open opens a node that connects by a URL.
func (w *world) open(url, name string, opts ...postgres.Option) *postgres.Cluster {
	w.Helper()
	opts = append([]postgres.Option{postgres.WithName(name), postgres.WithTTL(w.ttl), postgres.WithSchema(w.schema), postgres.WithLogger(w.logger(name))}, opts...)
	c, err := postgres.Open(url, opts...)
	if err != nil {
		w.Fatal(err)
	}
	w.nodes = append(w.nodes, c)
	return c
}

// admin runs a question of the superuser that has one number as its answer.
func (w *world) admin(sql string, args ...any) (answer int) {
	w.Helper()
	w.asAdmin(func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, w.inSchema(sql), args...).Scan(&answer)
	})
	return answer
}

// adminExec has the superuser do something. The statement may do without some of
// the arguments.
func (w *world) adminExec(sql string, args ...string) {
	w.Helper()
	for i, arg := range args {
		sql = strings.ReplaceAll(sql, fmt.Sprintf("$%d", i+1), "'"+strings.ReplaceAll(arg, "'", "''")+"'")
	}
	w.asAdmin(func(ctx context.Context, conn *pgx.Conn) error {
		return conn.PgConn().Exec(ctx, w.inSchema(sql)).Close()
	})
}

func (w *world) inSchema(sql string) string {
	return strings.ReplaceAll(sql, "$schema", pgx.Identifier{w.schema}.Sanitize())
}

func (w *world) asAdmin(do func(context.Context, *pgx.Conn) error) {
	w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, w.server.AdminURL())
	if err != nil {
		w.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if err := do(ctx, conn); err != nil {
		w.Fatal(err)
	}
}

// startServer starts a server for one test, which may do to it what it likes.
func startServer(t *testing.T, settings ...string) *postgrestest.Server {
	t.Helper()
	postgrestest.Need(t)
	s, err := postgrestest.Start(settings...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the server:\n%s", s.LogTail(8000))
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
