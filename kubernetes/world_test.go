package kubernetes_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	coordination "k8s.io/api/coordination/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	clientset "k8s.io/client-go/kubernetes"
	typed "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"

	"highlander"
	"highlander/internal/netproxy"
	"highlander/kubernetes"
	"highlander/kubernetes/kubernetestest"
)

// shortTTL is that of the tests which wait until a lease has run out.
const shortTTL = 3 * time.Second

// world is a namespace of its own, for one test, with nodes that reach the server
// through a proxy each.
type world struct {
	t         testing.TB
	server    *kubernetestest.API
	namespace string
	admin     clientset.Interface
	rights    *rights
	access    *rest.Config // of the nodes

	proxies map[highlander.Cluster]*netproxy.Proxy
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldAt(t, sharedServer(t))
}

func newWorldAt(t testing.TB, s *kubernetestest.API) *world {
	t.Helper()
	client, err := rest.HTTPClientFor(s.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { utilnet.CloseIdleConnectionsFor(client.Transport) })
	admin, err := clientset.NewForConfigAndClient(s.AdminConfig(), client)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, server: s, admin: admin, proxies: map[highlander.Cluster]*netproxy.Proxy{}}
	t.Cleanup(func() { // after whatever closes the nodes
		for _, proxy := range w.proxies {
			proxy.Close()
		}
	})
	if w.namespace, err = s.Namespace(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.rights = grantRights(t, admin, w.namespace)
	if w.access, err = s.Token(t.Context(), w.namespace, w.rights.account); err != nil {
		t.Fatal(err)
	}
	return w
}

// node opens a node, which the test closes.
func (w *world) node(name string, opts ...kubernetes.Option) *kubernetes.Cluster {
	w.t.Helper()
	proxy, err := netproxy.New("tcp", w.server.Addr())
	if err != nil {
		w.t.Fatal(err)
	}
	access := rest.CopyConfig(w.access)
	access.Host = "https://" + proxy.Addr()
	kubeconfig := filepath.Join(w.t.TempDir(), "kubeconfig")
	if err := kubernetestest.WriteKubeconfig(kubeconfig, access, w.namespace); err != nil {
		w.t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(w.t.Output(), nil))
	all := append([]kubernetes.Option{kubernetes.WithName(name), kubernetes.WithTTL(shortTTL), kubernetes.WithLogger(log)}, opts...)
	c, err := kubernetes.Open(kubernetestest.ClusterURL(w.namespace, kubeconfig), all...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.proxies[c] = proxy
	return c
}

// client is one that a program has, with the rights of a node and no limit to its
// rate. Its requests go through what wrap makes of its transport.
func (w *world) client(wrap transport.WrapperFunc) clientset.Interface {
	w.t.Helper()
	access := rest.CopyConfig(w.access)
	access.QPS = -1
	access.Wrap(wrap)
	client, err := rest.HTTPClientFor(access)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { utilnet.CloseIdleConnectionsFor(client.Transport) })
	theirs, err := clientset.NewForConfigAndClient(access, client)
	if err != nil {
		w.t.Fatal(err)
	}
	return theirs
}

// openWith is open, for a node that uses a client which the program has.
func (w *world) openWith(client clientset.Interface, name string, opts ...kubernetes.Option) *kubernetes.Cluster {
	w.t.Helper()
	log := slog.New(slog.NewTextHandler(w.t.Output(), nil))
	all := append([]kubernetes.Option{kubernetes.WithName(name), kubernetes.WithLogger(log)}, opts...)
	node, err := kubernetes.New(client, w.namespace, all...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = node.Close() })
	return node
}

func (w *world) leases() typed.LeaseInterface { return w.admin.CoordinationV1().Leases(w.namespace) }

// get returns the Lease object of an id.
func (w *world) get(id string) *coordination.Lease {
	w.t.Helper()
	o, err := w.leases().Get(w.t.Context(), kubernetes.ObjectName(id), meta.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return o
}

// edit changes the Lease object of an id, as kubectl edit does.
func (w *world) edit(id string, change func(*coordination.Lease)) {
	w.t.Helper()
	for {
		o := w.get(id)
		change(o)
		_, err := w.leases().Update(w.t.Context(), o, meta.UpdateOptions{})
		if err == nil {
			return
		}
		if !kubernetes.IsOutdated(err) {
			w.t.Fatal(err)
		}
	}
}

// delete deletes the Lease object of an id, as kubectl delete does.
func (w *world) delete(id string) {
	w.t.Helper()
	if err := w.leases().Delete(w.t.Context(), kubernetes.ObjectName(id), meta.DeleteOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// cut cuts a node off, in the way that the proxy is told to.
func (w *world) cut(node highlander.Cluster, how func(*netproxy.Proxy)) (mend func()) {
	how(w.proxies[node])
	return w.proxies[node].Mend
}

// open is node, for a test that leaves closing to it.
func (w *world) open(name string, opts ...kubernetes.Option) *kubernetes.Cluster {
	w.t.Helper()
	node := w.node(name, opts...)
	w.t.Cleanup(func() { _ = node.Close() }) // it may be cut off
	return node
}

// patience is a safety net: no step is expected to need a noticeable part of it.
const patience = time.Minute

// waiter is a call of Acquire in a goroutine of its own.
type waiter struct {
	done  chan struct{} // closed when it has returned
	lease highlander.Lease
	err   error
}

func (w *world) start(node highlander.Cluster, id string) *waiter { return w.startWith(node, id, 0) }

func (w *world) startWith(node highlander.Cluster, id string, stopWithin time.Duration) *waiter {
	return w.startUntil(w.t.Context(), node, id, stopWithin)
}

func (w *world) startUntil(ctx context.Context, node highlander.Cluster, id string, stopWithin time.Duration) *waiter {
	waits := &waiter{done: make(chan struct{})}
	ctx, cancel := context.WithTimeout(ctx, patience)
	go func() {
		defer cancel()
		defer close(waits.done)
		waits.lease, waits.err = node.Acquire(ctx, id, highlander.AcquireOptions{StopWithin: stopWithin})
	}()
	return waits
}

func (w *world) acquire(node highlander.Cluster, id string, stopWithin time.Duration) highlander.Lease {
	w.t.Helper()
	return w.firstOf(w.startWith(node, id, stopWithin))
}

// firstOf returns the lease of the waiter that is first to get one.
func (w *world) firstOf(waiters ...*waiter) highlander.Lease {
	w.t.Helper()
	tooLong := time.After(patience)
	cases := []reflect.SelectCase{{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(tooLong)}}
	for _, waits := range waiters {
		cases = append(cases, reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(waits.done)})
	}
	i, _, _ := reflect.Select(cases)
	if i == 0 {
		w.t.Fatal("nobody gets the lease")
	}
	first := waiters[i-1]
	if first.err != nil {
		w.t.Fatal(first.err)
	}
	return first.lease
}

func (w *world) release(l highlander.Lease) {
	w.t.Helper()
	if err := l.Release(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// knows waits until a node, which watches, has heard of a holder.
func (w *world) knows(node *kubernetes.Cluster, id string, holder highlander.Cluster) {
	w.t.Helper()
	w.eventually("the node knows the holder", func() bool {
		h, err := node.Lookup(w.t.Context(), id)
		return node.Watches() && err == nil && h.Node == holder.Node()
	})
}

func (w *world) receive(c <-chan struct{}) {
	w.t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		w.t.Fatal("waited in vain")
	}
}

// eventually waits until something is so.
func (w *world) eventually(what string, is func() bool) {
	w.t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// recorder keeps what is logged.
type recorder struct {
	mu    sync.Mutex
	lines []string
}

func (r *recorder) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(r, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (r *recorder) Write(line []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, string(line))
	return len(line), nil
}

func (r *recorder) count(level, message string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, line := range r.lines {
		if strings.Contains(line, "level="+level) && strings.Contains(line, message) {
			n++
		}
	}
	return n
}
