//go:build unix

package main

import (
	"strings"
	"testing"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"highlander/kubernetes/kubernetestest"
)

func init() { serverKinds["kubernetes"] = startKubernetes }

func startKubernetes(t *testing.T) *testServer {
	t.Helper()
	kubernetestest.Need(t)
	s, err := kubernetestest.Start()
	must(t, err)
	return &testServer{
		url: s.URL(),
		other: func(t *testing.T) string {
			namespace, err := s.Namespace(t.Context())
			must(t, err)
			return kubernetestest.ClusterURL(namespace, s.Kubeconfig())
		},
		stop:   s.Stop,
		start:  s.StartAgain,
		freeze: s.Freeze,
		thaw:   s.Thaw,
		close:  s.Close,
		leftBy: func(t *testing.T, _ *process) (names []string) {
			admin, err := kubernetes.NewForConfig(s.AdminConfig())
			must(t, err)
			leases, err := admin.CoordinationV1().Leases(meta.NamespaceAll).List(t.Context(), meta.ListOptions{})
			must(t, err)
			for _, l := range leases.Items {
				if strings.Contains(l.Name, "bench") {
					names = append(names, l.Name)
				}
			}
			return names
		},
	}
}
