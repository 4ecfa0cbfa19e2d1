//go:build unix

package main

import (
	"crypto/rand"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"highlander/etcd/etcdtest"
)

func startEtcd(t *testing.T) *testServer {
	t.Helper()
	s, err := etcdtest.Start(1)
	must(t, err)
	return &testServer{
		url:    s.URL() + "/jobs",
		other:  func(t *testing.T) string { return s.URL() + "/" + rand.Text() },
		stop:   func() error { s.Stop(); return nil },
		start:  s.Restart,
		freeze: s.Freeze,
		thaw:   s.Thaw,
		close:  s.Close,
		leftBy: func(t *testing.T, _ *process) (keys []string) {
			client, err := s.Client()
			must(t, err)
			defer client.Close()
			resp, err := client.Get(t.Context(), "/"+label(t)+"/highlander-bench", clientv3.WithPrefix())
			must(t, err)
			for _, kv := range resp.Kvs {
				keys = append(keys, string(kv.Key))
			}
			return keys
		},
		knowing: true,
	}
}
