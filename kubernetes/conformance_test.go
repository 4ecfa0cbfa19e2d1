package kubernetes_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	coordination "k8s.io/api/coordination/v1"

	"highlander"
	"highlander/highlandertest"
	"highlander/internal/netproxy"
	"highlander/kubernetes"
	"highlander/kubernetes/kubernetestest"
)

// The suite looks at all goroutines of its process, and mostly waits for leases to
// run out. So its parts run side by side, in a process each: TestConformance is
// all that the others leave.

func TestConformance(t *testing.T) { alone(t, "", "/^(Nodes|Expiry|Server)$", conformance) }

func TestConformanceNodes(t *testing.T) { alone(t, "/^(Nodes|Expiry)$", "", conformance) }

func TestConformanceHarm(t *testing.T) { alone(t, "/^Server$/^harm", "", conformance) }

func TestConformanceServer(t *testing.T) {
	alone(t, "/^Server$", "/^Server$/^harm", conformanceOfFailingServer)
}

func conformance(t *testing.T) {
	api := sharedServer(t)
	highlandertest.TestCluster(t, func(t *testing.T) highlandertest.Fixture { return newFixture(t, newWorldAt(t, api)) })
}

func conformanceOfFailingServer(t *testing.T) {
	server := startServer(t)
	highlandertest.TestCluster(t, func(t *testing.T) highlandertest.Fixture {
		w := newWorldAt(t, &server.API)
		f := newFixture(t, w)
		f.Server.Restart = func(t *testing.T) { restart(t, server) }
		f.Server.Hang = func(t *testing.T) func() { return freeze(t, server) }
		return f
	})
}

// restart takes about as long as the TTL of these tests.
func restart(t testing.TB, server *kubernetestest.Server) {
	t.Helper()
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
}

// freeze stops the server until thaw is called.
func freeze(t testing.TB, server *kubernetestest.Server) (thaw func()) {
	t.Helper()
	if err := server.Freeze(); err != nil {
		t.Fatal(err)
	}
	return sync.OnceFunc(func() {
		if err := server.Thaw(); err != nil {
			t.Error(err)
		}
	})
}

// conformanceTTL is short for the checks that wait until a lease has run out, and
// so long for the others that no load makes them lose one. It is no longer than
// that, as new ids have to settle until a node has watched for so long. A request
// has a fifth of it.
func conformanceTTL(check string) time.Duration {
	for _, waits := range []string{"/Expiry", "/Server", "crashed"} {
		if strings.Contains(check, waits) {
			return 6 * time.Second
		}
	}
	return 30 * time.Second
}

func newFixture(t *testing.T, w *world) highlandertest.Fixture {
	ttl := conformanceTTL(t.Name())
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
