package postgres_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"highlander"
	"highlander/highlandertest"
	"highlander/internal/netproxy"
	"highlander/postgres"
)

// TestConformance is about nodes that are connected to the server itself: that one
// of them is dead can be proved.
func TestConformance(t *testing.T) { alone(t, conformance) }

func conformance(t *testing.T) {
	server := sharedServer(t)
	highlandertest.TestCluster(t, func(t *testing.T) highlandertest.Fixture {
		f := &fixture{world: newWorld(t, server, conformanceTTL(t.Name()))}
		return highlandertest.Fixture{Node: f.node, Waiting: f.waiting, Crash: f.crash, TTL: f.ttl}
	})
}

// TestConformanceBehindProxies is about nodes that each have a proxy before a
// server that suffers.
func TestConformanceBehindProxies(t *testing.T) { alone(t, conformanceBehindProxies) }

func conformanceBehindProxies(t *testing.T) {
	server := startServer(t)
	highlandertest.TestCluster(t, func(t *testing.T) highlandertest.Fixture {
		f := &fixture{world: newWorld(t, server, conformanceTTL(t.Name())), proxies: map[string]*netproxy.Proxy{}}
		return highlandertest.Fixture{Node: f.nodeBehindProxy, Waiting: f.waiting, Crash: f.crash, TTL: f.ttl, Cut: f.cut, Server: f.failing()}
	})
}

// conformanceTTL is short for the checks that wait until a lease has run out, and
// so long for the others that no load makes them lose one.
func conformanceTTL(check string) time.Duration {
	for _, lasts := range []string{"a_lease_is_renewed", "/a_short_"} {
		if strings.Contains(check, lasts) {
			return 5 * time.Second // it has to outlast the TTL, also on a busy machine
		}
	}
	for _, waits := range []string{"/Expiry", "/Server", "crashed", "close_during"} {
		if strings.Contains(check, waits) {
			return 2500 * time.Millisecond
		}
	}
	return 30 * time.Second
}

// fixture is a cluster for the conformance suite.
type fixture struct {
	*world
	proxies map[string]*netproxy.Proxy // by node
}

func (f *fixture) node(t *testing.T, name string) highlander.Cluster {
	return f.open(f.server.URL(), name)
}

func (f *fixture) waiting(t *testing.T, id string) int {
	return f.admin("select count(*) from $schema.waiters where id = $1", id)
}

func (f *fixture) crash(t *testing.T, c highlander.Cluster) { c.(*postgres.Cluster).Crash() }

func (f *fixture) nodeBehindProxy(t *testing.T, name string) highlander.Cluster {
	proxy := f.newProxy()
	c := f.open(f.behind(proxy), name)
	f.proxies[c.Node()] = proxy
	return c
}

// newProxy starts a proxy before the server.
func (w *world) newProxy() *netproxy.Proxy {
	w.Helper()
	proxy, err := netproxy.New("tcp", w.server.Addr())
	if err != nil {
		w.Fatal(err)
	}
	w.after = append(w.after, proxy.Close)
	return proxy
}

// behind returns the URL of the server behind a proxy.
func (w *world) behind(proxy *netproxy.Proxy) string {
	w.Helper()
	u, err := url.Parse(w.server.URL())
	if err != nil {
		w.Fatal(err)
	}
	u.Host = proxy.Addr()
	return u.String()
}

func (f *fixture) cut(t *testing.T, node highlander.Cluster) (mend func()) {
	f.proxies[node.Node()].Cut()
	return f.proxies[node.Node()].Mend
}

// failing is what is done to the server.
func (f *fixture) failing() *highlandertest.Server {
	return &highlandertest.Server{
		Restart: func(t *testing.T) {
			if err := f.server.Restart(); err != nil {
				t.Fatal(err)
			}
		},
		LeasesOutliveRestart: true,
		Hang: func(t *testing.T) func() {
			if err := f.server.Freeze(); err != nil {
				t.Fatal(err)
			}
			return func() {
				if err := f.server.Thaw(); err != nil {
					t.Error(err)
				}
			}
		},
		CutSend: func(t *testing.T, node highlander.Cluster) func() {
			f.proxies[node.Node()].CutSend()
			return f.proxies[node.Node()].Mend
		},
		CutReceive: func(t *testing.T, node highlander.Cluster) func() {
			f.proxies[node.Node()].CutReceive()
			return f.proxies[node.Node()].Mend
		},
		Deny: f.deny,
		Harm: []highlandertest.Harm{
			f.harm("both its sessions are terminated", `select pg_terminate_backend(work_pid), pg_terminate_backend(ring_pid) from $schema.nodes where name = $1`),
			f.harm("its row is deleted", `delete from $schema.leases where id = $2`),
			f.harm("its row is marked as released", `update $schema.leases set released = true where id = $2`),
			f.harm("its row is overwritten", `update $schema.leases set token = token + 5, session = 4711, node = 'nobody' where id = $2`),
			f.harm("its row and its sessions are gone", `with row as (delete from $schema.leases where id = $2)
				select pg_terminate_backend(work_pid), pg_terminate_backend(ring_pid) from $schema.nodes where name = $1`),
			f.harm("the row of its node is deleted", `delete from $schema.nodes where name = $1`),
			f.harm("the tables are dropped", `drop schema $schema cascade`),
		},
	}
}

// deny makes the password wrong and ends all sessions.
func (f *fixture) deny(t *testing.T) (allow func()) {
	f.adminExec("alter role app password 'changed'")
	f.adminExec("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'")
	return func() { f.adminExec("alter role app password 'secret'") }
}

// harm runs a statement in which $1 is the node, and $2 the id.
func (f *fixture) harm(name, sql string) highlandertest.Harm {
	return highlandertest.Harm{Name: name, Do: func(t *testing.T, node highlander.Cluster, id string) {
		f.adminExec(sql, node.Node(), id)
	}}
}
