package kubernetes_test

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"highlander/kubernetes/kubernetestest"
)

// sharedServer is the one of all tests of this package. Each has a namespace.
var sharedServer struct {
	sync.Mutex
	*kubernetestest.Server
}

func TestMain(m *testing.M) {
	code := m.Run()
	if sharedServer.Server != nil {
		if err := sharedServer.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// server starts the server of this package, unless it runs.
func server(t testing.TB) *kubernetestest.Server {
	t.Helper()
	kubernetestest.Need(t)
	sharedServer.Lock()
	defer sharedServer.Unlock()
	if sharedServer.Server == nil {
		started, err := kubernetestest.Start()
		if err != nil {
			t.Fatal(err)
		}
		sharedServer.Server = started
	}
	return sharedServer.Server
}
