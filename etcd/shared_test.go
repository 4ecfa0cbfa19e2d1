package etcd_test

import (
	"os"
	"sync"
	"testing"

	"highlander/etcd/etcdtest"
)

// shared is a server of one member, for tests that leave it and the others' keys
// alone: each has a prefix of its own.
var shared struct {
	sync.Mutex
	server *etcdtest.Server
}

func sharedServer(t *testing.T) *etcdtest.Server {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil {
		s, err := etcdtest.Start(1)
		must(t, err)
		shared.server = s
	}
	return shared.server
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.server != nil {
		shared.server.Close()
	}
	os.Exit(code)
}
