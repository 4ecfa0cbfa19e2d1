// Package postgrestest starts PostgreSQL servers for tests, from the programs
// that are installed on the machine, and does to them what servers suffer:
// restarts, crashes, freezes. Each server has a temporary data directory, a unix
// socket and a port of the loopback interface. It never runs as root.
package postgrestest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Server is a PostgreSQL server. Its methods may be called by one goroutine at a
// time.
type Server struct {
	programs programs
	dir      string // holds everything of this server
	port     int
	settings []string

	process *process    // nil while it is stopped
	keeper  chan func() // what the goroutine does that has all processes
}

// The user and the database that URL names. The user owns the database and is
// nothing special beyond that.
const (
	User     = "app"
	Password = "secret"
	Database = "app"
)

// patience is how long a server may take to start or to stop.
const patience = time.Minute

// Start starts a server and returns when it answers. Each setting is a line of
// postgresql.conf, such as "max_connections = 20". What is written survives a
// crash of the server, but not one of the machine (fsync is off), unless a
// setting says otherwise. With "ssl = on" it has a certificate for TLSURL. Close it when it is not needed any more; on Linux it
// also ends with the process that started it.
func Start(settings ...string) (*Server, error) {
	found, err := find()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "highlander-postgres-*")
	if err != nil {
		return nil, fmt.Errorf("postgrestest: %w", err)
	}
	s := &Server{programs: found, dir: dir, settings: settings, keeper: make(chan func())}
	go s.keep()
	if err := s.create(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// keep is the goroutine that starts the processes and waits for their end, until
// Close. It has a thread of its own, because the parent's death that a process
// ends with is that of the thread.
func (s *Server) keep() {
	runtime.LockOSThread()
	for do := range s.keeper {
		do()
	}
}

// create fills the directory, starts the server and makes user and database.
func (s *Server) create() error {
	if err := template.copyTo(s.programs, s.data()); err != nil {
		return fmt.Errorf("postgrestest: initdb: %w", err)
	}
	if err := s.programs.own(s.dir); err != nil {
		return fmt.Errorf("postgrestest: %w", err)
	}
	// Another process may take the port before the server does.
	var err error
	for range 5 {
		if s.port, err = freePort(); err != nil {
			return fmt.Errorf("postgrestest: %w", err)
		}
		if err = s.StartAgain(); err == nil {
			return nil
		}
	}
	return err
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }
func (s *Server) log() string  { return filepath.Join(s.dir, "log") }

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// StartAgain starts a server that was stopped, with its data and on its port.
func (s *Server) StartAgain() error {
	if s.process != nil {
		return errors.New("postgrestest: the server runs already")
	}
	if err := s.configure(); err != nil {
		return fmt.Errorf("postgrestest: %w", err)
	}
	p, err := s.programs.start(s.keeper, s.log(), "postgres", "-D", s.data())
	if err != nil {
		return fmt.Errorf("postgrestest: start the server: %w", err)
	}
	if err := s.awaitReady(p); err != nil {
		_ = p.signal(quitAtOnce)
		<-p.ended
		return fmt.Errorf("postgrestest: %w; its log ends:\n%s", err, s.LogTail(2000))
	}
	s.process = p
	return nil
}

func (s *Server) configure() error {
	lines := append([]string{
		"listen_addresses = '127.0.0.1'",
		"port = " + strconv.Itoa(s.port),
		"unix_socket_directories = '" + s.dir + "'",
		"fsync = off",
		"max_connections = 200",
		"shared_buffers = 32MB",
	}, s.settings...)
	return os.WriteFile(filepath.Join(s.data(), "postgresql.auto.conf"), []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}

// awaitReady waits until the server says in its postmaster.pid that it takes
// connections, as pg_ctl does.
func (s *Server) awaitReady(p *process) error {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		pidFile, err := os.ReadFile(filepath.Join(s.data(), "postmaster.pid"))
		lines := bytes.Split(pidFile, []byte("\n"))
		if err == nil && len(lines) > 7 && string(lines[0]) == strconv.Itoa(p.pid()) && string(bytes.TrimSpace(lines[7])) == "ready" {
			return nil
		}
		select {
		case <-p.ended:
			return errors.New("the server has ended at once")
		case <-time.After(5 * time.Millisecond):
		}
	}
	return fmt.Errorf("the server is not ready after %v", patience)
}

// Stop stops the server as `pg_ctl stop` does: it ends all sessions and shuts
// down in order. It returns when it has.
func (s *Server) Stop() error { return s.end(stopFast) }

// Crash ends the server at once: nothing is written, no client is told why, and
// it goes through recovery when it is started again.
func (s *Server) Crash() error { return s.end(quitAtOnce) }

func (s *Server) end(how signal) error {
	if s.process == nil {
		return nil
	}
	if err := s.Thaw(); err != nil {
		return err
	}
	if err := s.process.signal(how); err != nil {
		return fmt.Errorf("postgrestest: stop the server: %w", err)
	}
	select {
	case <-s.process.ended:
	case <-time.After(patience):
		return fmt.Errorf("postgrestest: the server has not stopped after %v", patience)
	}
	s.process = nil
	return nil
}

// Restart stops the server in order and starts it again.
func (s *Server) Restart() error { return errors.Join(s.Stop(), s.StartAgain()) }

// Freeze stops every process of the server, so that it neither answers nor
// closes a connection, until Thaw.
func (s *Server) Freeze() error {
	if s.process == nil {
		return nil
	}
	if err := s.process.freeze(); err != nil {
		return fmt.Errorf("postgrestest: freeze the server: %w", err)
	}
	return nil
}

// Thaw lets a server that is frozen go on.
func (s *Server) Thaw() error {
	if s.process == nil {
		return nil
	}
	if err := s.process.thaw(); err != nil {
		return fmt.Errorf("postgrestest: thaw the server: %w", err)
	}
	return nil
}

// Close ends the server at once, if it runs, and removes its directory. Nothing may
// be called after it.
func (s *Server) Close() error {
	err := errors.Join(s.Crash(), os.RemoveAll(s.dir))
	close(s.keeper)
	template.release()
	return err
}

// Addr is where the server listens: 127.0.0.1 and a port, the same for as long as
// it exists.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// URL is for clients: User with Password, in Database, over TCP.
func (s *Server) URL() string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(User, Password), Host: s.Addr(), Path: "/" + Database, RawQuery: "sslmode=disable"}
	return u.String()
}

// TLSURL is URL over TLS, where the server was started with "ssl = on".
func (s *Server) TLSURL() string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(User, Password), Host: s.Addr(), Path: "/" + Database}
	u.RawQuery = url.Values{"sslmode": {"verify-full"}, "sslrootcert": {filepath.Join(s.data(), certFile)}}.Encode()
	return u.String()
}

// SocketURL is URL over the unix socket.
func (s *Server) SocketURL() string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(User, Password), Path: "/" + Database, RawQuery: s.socketQuery()}
	return u.String()
}

// AdminURL is for the superuser, over the unix socket, in Database.
func (s *Server) AdminURL() string {
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Path: "/" + Database, RawQuery: s.socketQuery()}
	return u.String()
}

func (s *Server) socketQuery() string {
	return url.Values{"host": {s.dir}, "port": {strconv.Itoa(s.port)}}.Encode()
}

// LogTail returns the last n bytes, at most, of what the server has logged.
func (s *Server) LogTail(n int) string {
	log, _ := os.ReadFile(s.log()) // empty if there is none
	return string(log[max(0, len(log)-n):])
}

// template is a data directory that servers are copies of: making one takes
// seconds. It is kept while a server of this process exists.
var template dataTemplate

type dataTemplate struct {
	mu    sync.Mutex
	users int
	dir   string
}

// copyTo makes the template if there is none, and copies it. Each call needs one
// of release.
func (t *dataTemplate) copyTo(from programs, dir string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.users++
	if t.dir == "" {
		made, err := makeTemplate(from)
		if err != nil {
			return err
		}
		t.dir = made
	}
	return os.CopyFS(dir, os.DirFS(filepath.Join(t.dir, "data")))
}

func (t *dataTemplate) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.users--; t.users == 0 {
		_ = os.RemoveAll(t.dir) // a temporary directory: nobody can do anything about it
		t.dir = ""
	}
}

// access lets the superuser in by the unix socket, and everybody else with a
// password.
const access = `local all postgres trust
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
host all all ::1/128 scram-sha-256
`

func makeTemplate(from programs) (dir string, err error) {
	dir, err = os.MkdirTemp("", "highlander-postgres-template-*")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if err := from.own(dir); err != nil {
		return "", err
	}
	data := filepath.Join(dir, "data")
	if err := from.run("", "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"); err != nil {
		return "", err
	}
	// In single-user mode: one statement a line.
	make := fmt.Sprintf("create role %s login password '%s'\ncreate database %s owner %s\n", User, Password, Database, User)
	if err := from.run(make, "postgres", "--single", "-F", "-D", data, "postgres"); err != nil {
		return "", err
	}
	return dir, errors.Join(os.WriteFile(filepath.Join(data, "pg_hba.conf"), []byte(access), 0o600), makeCertificate(data))
}
