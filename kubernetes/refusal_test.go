package kubernetes_test

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"

	"highlander/kubernetes"
	"highlander/kubernetes/kubernetestest"
)

// busy stands before a server and refuses to have anything written, now and then.
type busy struct {
	pass *httputil.ReverseProxy

	mu       sync.Mutex
	pause    int // seconds; zero lets everything pass
	answered time.Time
	refused  int
	early    []time.Duration // of requests that did not wait
}

func (b *busy) ServeHTTP(answer http.ResponseWriter, request *http.Request) {
	if request.Method != http.MethodPut || !b.refuses(answer) {
		b.pass.ServeHTTP(answer, request)
	}
}

func (b *busy) refuses(answer http.ResponseWriter) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pause == 0 {
		return false
	}
	if early := time.Duration(b.pause)*time.Second - time.Since(b.answered); b.refused > 0 && early > 0 {
		b.early = append(b.early, early)
	}
	answer.Header().Set("Retry-After", strconv.Itoa(b.pause))
	http.Error(answer, "Too many requests, please try again later.", http.StatusTooManyRequests)
	b.answered = time.Now()
	b.refused++
	return true
}

func (b *busy) refuse(seconds int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pause, b.refused = seconds, 0
}

func (b *busy) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.refused
}

// A request may take 10 s here: client-go waits three times, and then it is for us.
func TestAServerThatIsBusyIsGivenTheTimeItAsksFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	inside, err := rest.TransportFor(&rest.Config{TLSClientConfig: w.access.TLSClientConfig})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { utilnet.CloseIdleConnectionsFor(inside) })
	server, err := url.Parse(w.server.Host())
	if err != nil {
		t.Fatal(err)
	}
	b := &busy{pass: &httputil.ReverseProxy{Transport: inside, FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(server) }}}
	front := httptest.NewTLSServer(b)
	t.Cleanup(front.Close)
	access := rest.CopyConfig(w.access)
	access.Host, access.CAData = front.URL, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw})
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := kubernetestest.WriteKubeconfig(kubeconfig, access, w.namespace); err != nil {
		t.Fatal(err)
	}
	node, err := kubernetes.Open(kubernetestest.ClusterURL(w.namespace, kubeconfig), kubernetes.WithTTL(50*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = node.Close() })
	l := w.acquire(node, "id", time.Second)

	b.refuse(3)
	w.eventually("a renewal is refused some times", func() bool { return b.count() >= 5 })
	expires := l.Expires()
	b.refuse(0)
	w.eventually("it is renewed", func() bool { return l.Expires().After(expires) })
	if len(b.early) > 0 {
		t.Errorf("%d requests came too early, by %v", len(b.early), b.early)
	}
}
