package etcd_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"highlander"
	"highlander/etcd"
	"highlander/etcd/etcdtest"
	"highlander/highlandertest"
	"highlander/internal/netproxy"
)

// The nodes have no rights but those of docs/etcd.md: to read and write what is
// below the prefix.
func TestConformance(t *testing.T) {
	run := func(groups string) string { return "^TestConformance$/^(" + groups + ")$" }
	alone(t, conformance,
		[]string{"-test.run=" + run("Leases|Expiry")},
		[]string{"-test.run=" + run("Nodes")},
		[]string{"-test.run=^TestConformance$", "-test.skip=" + run("Leases|Expiry|Nodes")}) // the rest
}

func conformance(t *testing.T) {
	server := startServer(t, members)
	users := writePasswords(t, server, "/test/", "highlander")
	highlandertest.TestCluster(t, func(t *testing.T) highlandertest.Fixture {
		f := newFixture(t, server)
		f.user = users["highlander"]
		switch {
		case noLeaseRunsOut(t.Name()):
			f.ttl = 30 * time.Second // a thousand ids keep a server busy
		case strings.Contains(t.Name(), "a_lease_is_renewed"), strings.Contains(t.Name(), "/a_short_"):
			f.ttl = 5 * time.Second // it has to outlast the TTL, also on a busy machine
		}
		return highlandertest.Fixture{
			Node: f.node, Waiting: f.waiting, Crash: f.crash, TTL: f.ttl, Cut: f.cut,
			Server: &highlandertest.Server{
				Restart: func(t *testing.T) { must(t, server.Restart()) },
				Hang: func(t *testing.T) (resume func()) {
					must(t, server.Freeze())
					return func() { must(t, server.Thaw()) }
				},
				CutSend: func(t *testing.T, c highlander.Cluster) (mend func()) {
					return f.each(c, (*netproxy.Proxy).CutSend)
				},
				CutReceive: func(t *testing.T, c highlander.Cluster) (mend func()) {
					return f.each(c, (*netproxy.Proxy).CutReceive)
				},
				Deny: func(t *testing.T) (allow func()) { return deny(t, server, "highlander") },
				Harm: f.harms(),
			},
		}
	})
}

// noLeaseRunsOut says whether a check does not wait until one has run out.
func noLeaseRunsOut(check string) bool {
	_, inNodes, _ := strings.Cut(check, "/Nodes/")
	return strings.HasSuffix(check, "/Leases") || inNodes != "" && !strings.Contains(inNodes, "crashed") && !strings.Contains(inNodes, "close_during")
}

// deny takes the rights of a user.
func deny(t *testing.T, server *etcdtest.Server, user string) (allow func()) {
	must(t, server.Deny(user))
	denied := true
	return func() {
		if denied {
			must(t, server.Allow(user))
		}
		denied = false
	}
}

// harms are what somebody with etcdctl can do.
func (f *fixture) harms() []highlandertest.Harm {
	harm := func(name string, do func(ctx context.Context, client *clientv3.Client, c *etcd.Cluster, id string) error) highlandertest.Harm {
		return highlandertest.Harm{Name: name, Do: func(t *testing.T, c highlander.Cluster, id string) {
			t.Helper()
			client, err := f.server.Client()
			must(t, err)
			defer client.Close()
			must(t, do(t.Context(), client, c.(*etcd.Cluster), id))
		}}
	}
	remove := func(ctx context.Context, client *clientv3.Client, keys ...string) error {
		var ops []clientv3.Op
		for _, key := range keys {
			ops = append(ops, clientv3.OpDelete(key))
		}
		_, err := client.Txn(ctx).Then(ops...).Commit()
		return err
	}
	return []highlandertest.Harm{
		harm("lease revoked", func(ctx context.Context, client *clientv3.Client, c *etcd.Cluster, id string) error {
			_, err := client.Revoke(ctx, c.Lease())
			return err
		}),
		harm("claim deleted", func(ctx context.Context, client *clientv3.Client, c *etcd.Cluster, id string) error {
			return remove(ctx, client, c.ClaimKeys(id)...)
		}),
		harm("record overwritten", func(ctx context.Context, client *clientv3.Client, c *etcd.Cluster, id string) error {
			_, err := client.Put(ctx, c.RecordKey(id), "mine!")
			return err
		}),
		harm("everything deleted", func(ctx context.Context, client *clientv3.Client, c *etcd.Cluster, id string) error {
			if _, err := client.Delete(ctx, f.prefix+"/", clientv3.WithPrefix()); err != nil {
				return err
			}
			// Who comes now knows nothing, until the holder has put its record back.
			for ctx.Err() == nil {
				if resp, err := client.Get(ctx, c.RecordKey(id)); err != nil || resp.Count > 0 {
					return err
				}
				time.Sleep(time.Millisecond)
			}
			return errors.New("the holder has not put its record back")
		}),
	}
}
