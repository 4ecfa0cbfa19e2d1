package postgrestest_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"highlander/postgres/postgrestest"
)

// start starts a server that is closed at the end of the test.
func start(t *testing.T) *postgrestest.Server {
	t.Helper()
	postgrestest.Need(t)
	s, err := postgrestest.Start("max_connections = 17")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func ask(t *testing.T, conn *pgx.Conn, question string) (answer string) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), question).Scan(&answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestServerAnswersOnAllItsAddresses(t *testing.T) {
	s := start(t)
	for url, user := range map[string]string{s.URL(): "app", s.SocketURL(): "app", s.AdminURL(): "postgres"} {
		conn := connect(t, url)
		if got := ask(t, conn, "select current_user::text"); got != user {
			t.Errorf("%s: user %q; want %q", url, got, user)
		}
		if got := ask(t, conn, "select current_database()::text"); got != postgrestest.Database {
			t.Errorf("%s: database %q; want %q", url, got, postgrestest.Database)
		}
		if got := ask(t, conn, "show max_connections"); got != "17" {
			t.Errorf("%s: max_connections %s; the setting says 17", url, got)
		}
	}
	if _, err := net.Dial("tcp", s.Addr()); err != nil {
		t.Error(err)
	}
}

func TestServerKeepsItsDataThroughRestartAndCrash(t *testing.T) {
	s := start(t)
	conn := connect(t, s.URL())
	if _, err := conn.Exec(t.Context(), "create table kept as select 'it is here' as what"); err != nil {
		t.Fatal(err)
	}
	crash := func() error {
		if err := s.Crash(); err != nil {
			return err
		}
		return s.StartAgain()
	}
	for name, restart := range map[string]func() error{"restart": s.Restart, "crash": crash} {
		if err := restart(); err != nil {
			t.Fatal(err)
		}
		if err := conn.Ping(t.Context()); err == nil {
			t.Errorf("the session has survived the %s", name)
		}
		conn = connect(t, s.URL())
		if got := ask(t, conn, "select what from kept"); got != "it is here" {
			t.Errorf("after a %s: %q", name, got)
		}
	}
}

func TestFrozenServerAnswersWhenItIsThawed(t *testing.T) {
	s := start(t)
	conn := connect(t, s.URL())
	if err := s.Freeze(); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() {
		_, err := conn.Exec(t.Context(), "select 1")
		answer <- err
	}()
	select {
	case err := <-answer:
		t.Fatalf("a frozen server has answered: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	if err := s.Thaw(); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
}
