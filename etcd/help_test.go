package etcd_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"highlander"
	"highlander/etcd"
	"highlander/etcd/etcdtest"
	"highlander/internal/netproxy"
)

// patience is how long a step may take. It is a safety net.
const patience = 60 * time.Second

func startServer(t *testing.T, members int, opts ...etcdtest.Option) *etcdtest.Server {
	t.Helper()
	s, err := etcdtest.Start(members, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// logger writes what the engine logs to stderr with HIGHLANDER_TEST_LOG.
func logger() *slog.Logger {
	out := io.Discard
	if os.Getenv("HIGHLANDER_TEST_LOG") != "" {
		out = io.Writer(os.Stderr)
	}
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// ear is a log handler that calls do when a message begins with prefix.
type ear struct {
	slog.Handler
	prefix string
	do     func()
}

// when returns a logger like logger that calls do, once, before it is done with a
// message that begins with prefix.
func when(prefix string, do func()) *slog.Logger {
	return slog.New(ear{logger().Handler(), prefix, sync.OnceFunc(do)})
}

// count returns a logger that counts the lines which begin with prefix.
func count(prefix string, n *atomic.Int32) *slog.Logger {
	return slog.New(ear{logger().Handler(), prefix, func() { n.Add(1) }})
}

// listenFor returns a logger like logger, and what is closed when a message begins
// with prefix.
func listenFor(prefix string) (*slog.Logger, <-chan struct{}) {
	heard := make(chan struct{})
	return when(prefix, func() { close(heard) }), heard
}

func (e ear) Handle(ctx context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, e.prefix) {
		e.do()
	}
	return e.Handler.Handle(ctx, r)
}

func (e ear) WithAttrs(attrs []slog.Attr) slog.Handler {
	e.Handler = e.Handler.WithAttrs(attrs)
	return e
}

// receive waits until a channel is closed.
func receive(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("waited in vain until %s", what)
	}
}

// awaitKeys watches what is below a prefix until it is as wanted.
func awaitKeys(t *testing.T, client *clientv3.Client, prefix, what string, wanted func(values map[string]string) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(t.Context()), patience)
	defer cancel()
	found, err := client.Get(ctx, prefix, clientv3.WithPrefix())
	must(t, err)
	values := map[string]string{}
	for _, kv := range found.Kvs {
		values[string(kv.Key)] = string(kv.Value)
	}
	events := client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(found.Header.Revision+1))
	for !wanted(values) {
		resp, ok := <-events
		if !ok || resp.Err() != nil {
			t.Fatalf("waited in vain until %s: %v; there is %v", what, resp.Err(), values)
		}
		for _, ev := range resp.Events {
			if ev.Type == clientv3.EventTypeDelete {
				delete(values, string(ev.Kv.Key))
			} else {
				values[string(ev.Kv.Key)] = string(ev.Kv.Value)
			}
		}
	}
}

// writePasswords turns authentication on, with users who may do what they like
// below a prefix. It returns their parameters of a URL.
func writePasswords(t *testing.T, s *etcdtest.Server, prefix string, users ...string) map[string]string {
	t.Helper()
	passwords, params := map[string]string{}, map[string]string{}
	for _, user := range users {
		passwords[user] = user + "'s secret"
		file := filepath.Join(t.TempDir(), user)
		must(t, os.WriteFile(file, []byte(passwords[user]+"\n"), 0o600))
		params[user] = "?user=" + user + "&password-file=" + file
	}
	must(t, s.EnableAuth(prefix, passwords))
	return params
}

var clusters atomic.Int64

// newPrefix returns a prefix that no other test of this process uses.
func newPrefix() string { return fmt.Sprintf("/test/%d", clusters.Add(1)) }

// shortTTL is for what waits until a lease has run out. With less, a busy machine
// would lose leases, too.
const shortTTL = 3 * time.Second

// fixture is an empty cluster on a server: a prefix of its own. Between each node
// and each member of the server stands a proxy.
type fixture struct {
	server *etcdtest.Server
	prefix string
	ttl    time.Duration
	user   string // parameters of the URL
	log    *slog.Logger
	nodes  []*fixtureNode
}

type fixtureNode struct {
	*etcd.Cluster
	proxies []*netproxy.Proxy
}

func newFixture(t *testing.T, server *etcdtest.Server) *fixture {
	f := &fixture{server: server, prefix: newPrefix(), ttl: shortTTL, log: logger()}
	t.Cleanup(func() {
		for _, n := range f.nodes {
			for _, p := range n.proxies {
				p.Close()
			}
		}
	})
	return f
}

func (f *fixture) open(t *testing.T, name string) *fixtureNode {
	t.Helper()
	n := &fixtureNode{}
	var endpoints []string
	for _, endpoint := range f.server.Endpoints() {
		p, err := netproxy.New("tcp", endpoint)
		must(t, err)
		n.proxies = append(n.proxies, p)
		endpoints = append(endpoints, p.Addr())
	}
	c, err := etcd.Open(f.server.URLFor(endpoints...)+f.user, etcd.WithPrefix(f.prefix), etcd.WithName(name), etcd.WithTTL(f.ttl), etcd.WithLogger(f.log))
	must(t, err)
	n.Cluster = c
	f.nodes = append(f.nodes, n)
	return n
}

func (f *fixture) node(t *testing.T, name string) highlander.Cluster { return f.open(t, name).Cluster }

func (f *fixture) crash(t *testing.T, c highlander.Cluster) { c.(*etcd.Cluster).Crash() }

// waiting asks etcd, by way of a node that still works.
func (f *fixture) waiting(t *testing.T, id string) int {
	for _, n := range f.nodes {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		waiting, err := n.KnownWaiting(ctx, id)
		cancel()
		if err == nil {
			return waiting
		}
	}
	return -1
}

func (f *fixture) find(c highlander.Cluster) *fixtureNode {
	for _, n := range f.nodes {
		if n.Cluster == c {
			return n
		}
	}
	panic("no such node")
}

// each does something to the proxies of a node, and returns what mends it.
func (f *fixture) each(c highlander.Cluster, do func(*netproxy.Proxy)) (mend func()) {
	n := f.find(c)
	for _, p := range n.proxies {
		do(p)
	}
	return func() {
		for _, p := range n.proxies {
			p.Mend()
		}
	}
}

func (f *fixture) cut(t *testing.T, c highlander.Cluster) (mend func()) {
	return f.each(c, (*netproxy.Proxy).Cut)
}
