//go:build unix

package main

import (
	"crypto/rand"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"highlander/postgres/postgrestest"
)

func init() { serverKinds["postgres"] = startPostgres }

func startPostgres(t *testing.T) *testServer {
	t.Helper()
	postgrestest.Need(t)
	s, err := postgrestest.Start()
	must(t, err)
	return &testServer{
		url:    s.URL(),
		other:  func(t *testing.T) string { return s.URL() + "&schema=" + strings.ToLower(rand.Text()) },
		stop:   s.Stop,
		start:  s.StartAgain,
		freeze: s.Freeze,
		thaw:   s.Thaw,
		close:  s.Close,
		leftBy: func(t *testing.T, _ *process) []string {
			db, err := pgx.Connect(t.Context(), s.URL())
			must(t, err)
			defer db.Close(t.Context())
			rows, err := db.Query(t.Context(), "select nspname from pg_namespace where nspname like '%bench%'")
			must(t, err)
			schemas, err := pgx.CollectRows(rows, pgx.RowTo[string])
			must(t, err)
			return schemas
		},
		knowing: true,
		hears:   true,
	}
}

// At the end of its connections a node counts as dead, and the next one starts. The
// guard has them too, so that they do not end before the command does.
func TestPostgresHearsOfADeathWhenTheCommandIsGone(t *testing.T) {
	t.Parallel()
	s := startPostgres(t)
	t.Cleanup(func() { must(t, s.close()) })
	lock := filepath.Join(t.TempDir(), "lock")
	first := startLocked(t, s.with("application_name=first"), lock)
	first.stdout.next("runs on")
	second := startLocked(t, s.with("application_name=second"), lock)
	second.stderr.next("another node holds the id")

	db, err := pgx.Connect(t.Context(), s.url)
	must(t, err)
	defer db.Close(t.Context())
	connections := func(node string) (n int) {
		t.Helper()
		must(t, db.QueryRow(t.Context(), "select count(*) from pg_stat_activity where application_name = $1", node).Scan(&n))
		return n
	}
	// One that looked who holds the id before it asked for it has three.
	for begin := time.Now(); connections("first") < 2 || connections("second") < 2; {
		if time.Since(begin) > safetyNet {
			t.Fatalf("the nodes have %d and %d connections", connections("first"), connections("second"))
		}
	}
	guard, keeper := helpersOf(t, first)
	stop(t, guard, keeper) // the command lives on for now
	must(t, first.cmd.Process.Signal(syscall.SIGKILL))
	for exists(fmt.Sprintf("/proc/%d/fd/0", first.cmd.Process.Pid)) {
	}
	for range 100 { // it would take a few of these to notice
		if n := connections("first"); n < 2 {
			t.Fatalf("the server has %d connections of the node while its command lives", n)
		}
	}
	thaw(t, guard, keeper)
	second.stdout.next("runs on")
	first.exits(-1)
	mustNotOverlap(t, first, second)
}

// Neither the password that works nor one that does not.
func TestPasswordsAreShownNowhere(t *testing.T) {
	t.Parallel()
	s := startPostgres(t)
	t.Cleanup(func() { must(t, s.close()) })
	wrong := strings.Replace(s.url, ":"+postgrestest.Password+"@", ":s3cret@", 1)
	refusedBench := start(t, "bench", "--only", "graceful", "--cluster", wrong)
	refused := startNode(t, wrong, forever, "--log-level", "debug")
	refused.stderr.next("level=WARN", "password authentication failed")
	failed := start(t, "status", "--cluster", wrong)
	failed.exits(1)
	good := startNode(t, s.url, forever, "--log-level", "debug")
	good.stdout.next("hello runs on")
	table, asJSON := start(t, "status", "--cluster", s.url), start(t, "status", "--json", "--cluster", s.url)
	table.exits(0)
	asJSON.exits(0)
	bench := start(t, "bench", "--rounds", "1", "--only", "graceful", "--json", "--cluster", s.url)
	bench.exits(0)
	text := start(t, "bench", "--rounds", "1", "--only", "graceful", "--cluster", s.url)
	text.exits(0)
	for _, p := range []*process{refused, good} {
		p.signal(syscall.SIGTERM)
		<-p.ended
	}
	refusedBench.exits(1)
	refusedBench.stderr.next("no lease within", "password authentication failed")
	for _, p := range []*process{refused, refusedBench, failed, good, table, asJSON, bench, text} {
		said := p.stdout.all() + p.stderr.all()
		if strings.Contains(said, "s3cret") || strings.Contains(said, postgrestest.Password) {
			t.Errorf("%q tells the password", p.cmd.Args[1])
		}
	}
}
