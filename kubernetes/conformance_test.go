package kubernetes_test

import (
	"strings"
	"sync"
	"testing"

	coordination "k8s.io/api/coordination/v1"

	"highlander"
	"highlander/highlandertest"
	"highlander/internal/netproxy"
	"highlander/kubernetes"
)

func TestConformance(t *testing.T) {
	server(t)
	highlandertest.TestCluster(t, newFixture)
}

// newFixture has a short TTL for the checks that wait until a lease has run out,
// and a usual one for those under Leases, which do not, but keep the server busy.
func newFixture(t *testing.T) highlandertest.Fixture {
	w := newWorld(t)
	ttl := shortTTL
	if strings.HasSuffix(t.Name(), "/Leases") {
		ttl = kubernetes.DefaultTTL
	}
	cut := func(how func(*netproxy.Proxy)) func(*testing.T, highlander.Cluster) func() {
		return func(_ *testing.T, node highlander.Cluster) func() { return w.cut(node, how) }
	}
	return highlandertest.Fixture{
		Node:  func(_ *testing.T, name string) highlander.Cluster { return w.node(name, kubernetes.WithTTL(ttl)) },
		Crash: func(_ *testing.T, node highlander.Cluster) { node.(*kubernetes.Cluster).Crash() },
		TTL:   ttl,
		// Each costs a write every three seconds.
		ManyIDs: 100,
		Cut:     cut((*netproxy.Proxy).Cut),
		Server: &highlandertest.Server{
			// It takes about as long as the TTL of these tests.
			Restart:    func(*testing.T) { w.restart() },
			Hang:       func(*testing.T) func() { return w.freeze() },
			CutSend:    cut((*netproxy.Proxy).CutSend),
			CutReceive: cut((*netproxy.Proxy).CutReceive),
			Deny: func(*testing.T) func() {
				w.rights.deny()
				return sync.OnceFunc(w.rights.allow)
			},
			Harm: []highlandertest.Harm{
				{Name: "the object is deleted", Do: func(_ *testing.T, _ highlander.Cluster, id string) { w.delete(id) }},
				{Name: "the object names another holder", Do: func(_ *testing.T, _ highlander.Cluster, id string) {
					w.edit(id, func(o *coordination.Lease) { o.Spec.HolderIdentity = new("somebody") })
				}},
				{Name: "the object is emptied", Do: func(_ *testing.T, _ highlander.Cluster, id string) {
					w.edit(id, func(o *coordination.Lease) {
						o.Annotations, o.Labels, o.Spec = nil, nil, coordination.LeaseSpec{}
					})
				}},
			},
		},
	}
}
