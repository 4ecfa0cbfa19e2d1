package kubernetes_test

import (
	"encoding/pem"
	"fmt"
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
	status   int
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
	http.Error(answer, "Too many requests, please try again later.", b.status)
	b.answered = time.Now()
	b.refused++
	return true
}

func (b *busy) refuse(status, seconds int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status, b.pause, b.refused = status, seconds, 0
}

func (b *busy) allow() { b.refuse(http.StatusOK, 0) }

func (b *busy) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.refused
}

// behind opens a node whose requests are refused when b says so.
func (w *world) behind(b *busy, opts ...kubernetes.Option) *kubernetes.Cluster {
	w.t.Helper()
	inside, err := rest.TransportFor(&rest.Config{TLSClientConfig: w.access.TLSClientConfig})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { utilnet.CloseIdleConnectionsFor(inside) })
	server, err := url.Parse(w.server.Host())
	if err != nil {
		w.t.Fatal(err)
	}
	b.pass = &httputil.ReverseProxy{Transport: inside, FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(server) }}
	front := httptest.NewTLSServer(b)
	w.t.Cleanup(front.Close)
	access := rest.CopyConfig(w.access)
	access.Host, access.CAData = front.URL, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw})
	kubeconfig := filepath.Join(w.t.TempDir(), "kubeconfig")
	if err := kubernetestest.WriteKubeconfig(kubeconfig, access, w.namespace); err != nil {
		w.t.Fatal(err)
	}
	node, err := kubernetes.Open(kubernetestest.ClusterURL(w.namespace, kubeconfig), opts...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = node.Close() })
	return node
}

// A request may take 11.4 s here: client-go waits three times, and then, after 9 s,
// it is for us. A busy machine makes that later; what is answered as the time ends is
// not heard of.
func TestAServerThatIsBusyIsGivenTheTimeItAsksFor(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), &busy{}
	l := w.acquire(w.behind(b, kubernetes.WithTTL(57*time.Second)), "id", time.Second)

	b.refuse(http.StatusTooManyRequests, 3)
	w.eventually("a renewal is refused some times", func() bool { return b.count() >= 5 })
	expires := l.Expires()
	b.allow()
	w.eventually("it is renewed", func() bool { return l.Expires().After(expires) })
	if len(b.early) > 0 {
		t.Errorf("%d requests came too early, by %v", len(b.early), b.early)
	}
}

// It may have meant the requests of others, and a lease cannot wait for so long,
// which is more than a Duration has room for.
func TestAServerThatRefusesForYearsIsAskedAgainBeforeTheLeaseEnds(t *testing.T) {
	t.Parallel()
	const years = 10_000_000_000 // seconds
	for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			w, b, log := newWorld(t), &busy{}, &recorder{}
			l := w.acquire(w.behind(b, kubernetes.WithLogger(log.logger())), "id", time.Second)

			b.refuse(status, years)
			w.eventually("a renewal is refused some times", func() bool { return b.count() >= 3 || l.Err() != nil })
			expires := l.Expires()
			b.allow()
			w.eventually("it is renewed", func() bool { return l.Expires().After(expires) || l.Err() != nil })
			if l.Err() != nil {
				t.Errorf("the lease is done: %v", l.Err())
			}
			if n := log.count("WARN", fmt.Sprintf("(%d %s)", status, http.StatusText(status))); n != 1 {
				t.Errorf("%d warnings say that the server has refused, want 1", n)
			}
		})
	}
}
