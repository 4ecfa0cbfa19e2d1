package kubernetes_test

import (
	"log/slog"
	"testing"
	"time"

	"highlander"
	"highlander/highlandertest"
	"highlander/kubernetes"
	"highlander/kubernetes/kubernetestest"
)

// shortTTL is that of the tests which wait until a lease has run out.
const shortTTL = 3 * time.Second

func TestConformance(t *testing.T) {
	server(t)
	highlandertest.TestCluster(t, newFixture)
}

func newFixture(t *testing.T) highlandertest.Fixture {
	url := kubernetestest.ClusterURL(namespace(t), server(t).Kubeconfig())
	return highlandertest.Fixture{
		Node: func(t *testing.T, name string) highlander.Cluster {
			return open(t, url, kubernetes.WithName(name))
		},
		Crash: func(t *testing.T, node highlander.Cluster) { node.(*kubernetes.Cluster).Crash() },
		TTL:   shortTTL,
	}
}

// open opens a node, which the test closes.
func open(t testing.TB, url string, opts ...kubernetes.Option) *kubernetes.Cluster {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	c, err := kubernetes.Open(url, append([]kubernetes.Option{kubernetes.WithTTL(shortTTL), kubernetes.WithLogger(log)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
