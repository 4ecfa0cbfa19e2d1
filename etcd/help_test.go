package etcd_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
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

var clusters atomic.Int64

// fixture is an empty cluster on a server: a prefix of its own. Between each node
// and each member of the server stands a proxy.
type fixture struct {
	server *etcdtest.Server
	prefix string
	ttl    time.Duration
	query  string // more of the URL
	nodes  []*fixtureNode
}

type fixtureNode struct {
	*etcd.Cluster
	proxies []*netproxy.Proxy
}

func newFixture(t *testing.T, server *etcdtest.Server) *fixture {
	f := &fixture{server: server, prefix: fmt.Sprintf("/test/%d", clusters.Add(1)), ttl: 3 * time.Second}
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
	c, err := etcd.Open(f.server.URLFor(endpoints...)+f.query, etcd.WithPrefix(f.prefix), etcd.WithName(name), etcd.WithTTL(f.ttl), etcd.WithLogger(logger()))
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

// client returns a client that is not the engine's.
func (f *fixture) client(t *testing.T) *clientv3.Client {
	t.Helper()
	client, err := f.server.Client()
	must(t, err)
	t.Cleanup(func() { client.Close() })
	return client
}
