package kubernetes_test

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"

	"highlander/kubernetes/kubernetestest"
)

// sideBySide is how many tests run at a time: what they do is wait.
const sideBySide = "8"

func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.parallel").Value.String() == fmt.Sprint(runtime.GOMAXPROCS(0)) {
		_ = flag.Set("test.parallel", sideBySide)
	}
	code := m.Run()
	if shared.server != nil {
		if err := shared.server.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// shared is the server of the tests that do nothing to it: each has a namespace of
// its own. Processes that run a test alone use it, too.
var shared struct {
	sync.Once
	server *kubernetestest.Server // nil in those
	api    *kubernetestest.API
	err    error
}

func sharedServer(t testing.TB) *kubernetestest.API {
	t.Helper()
	kubernetestest.Need(t)
	shared.Do(func() {
		if kubeconfig := os.Getenv(serverEnv); kubeconfig != "" {
			shared.api, shared.err = kubernetestest.Connect(kubeconfig)
			return
		}
		if shared.server, shared.err = kubernetestest.Start(); shared.err == nil {
			shared.api = &shared.server.API
		}
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.api
}

// startServer starts a server for one test, which does something to it.
func startServer(t testing.TB) *kubernetestest.Server {
	t.Helper()
	kubernetestest.Need(t)
	server, err := kubernetestest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server
}
