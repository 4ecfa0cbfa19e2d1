//go:build unix

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// testServer is a real server with nothing in it.
type testServer struct {
	url     string                          // of a cluster on it
	other   func(t *testing.T) (url string) // of another one
	stop    func() error
	start   func() error
	freeze  func() error
	thaw    func() error
	close   func() error
	leftBy  func(t *testing.T, bench *process) []string // what it has of a bench that has ended
	knowing bool                                        // its nodes
	hears   bool                                        // that a node was killed, at once
}

// serverKinds start servers, or skip the test where that cannot be done.
var serverKinds = map[string]func(t *testing.T) *testServer{
	"etcd": startEtcd,
}

// onEachServer runs a test on a server of its own of each kind.
func onEachServer(t *testing.T, test func(t *testing.T, s *testServer)) {
	t.Parallel()
	for name, start := range serverKinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			t.Cleanup(func() { must(t, s.close()) })
			test(t, s)
		})
	}
}

// shared are servers that several tests use at once, by kind, for as long as this
// process lives. To start one takes long, or much.
var shared struct {
	sync.Mutex
	servers map[string]*testServer
}

// onSharedServers runs a test on a cluster of its own of each kind, which leaves
// the server alone.
func onSharedServers(t *testing.T, test func(t *testing.T, s *testServer)) {
	t.Parallel()
	for name, start := range serverKinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := *sharedServer(t, name, start)
			s.url = s.other(t)
			test(t, &s)
		})
	}
}

func sharedServer(t *testing.T, name string, start func(t *testing.T) *testServer) *testServer {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.servers[name] == nil {
		if shared.servers == nil {
			shared.servers = map[string]*testServer{}
		}
		shared.servers[name] = start(t)
	}
	return shared.servers[name]
}

func init() {
	atEnd = append(atEnd, func() {
		for _, s := range shared.servers {
			s.close()
		}
	})
}

// with returns the URL with more parameters.
func (s *testServer) with(params string) string {
	if strings.Contains(s.url, "?") {
		return s.url + "&" + params
	}
	return s.url + "?" + params
}

// The TTLs are short, as these tests wait for the end of leases. Where a lease must
// not run out of itself it is longer than a busy machine and its disk let a server
// wait.
const (
	serverTTL = 3 * time.Second
	steadyTTL = 6 * time.Second
)

// startWaiting starts a node that runs lockedForever when it is its turn, and waits
// until it knows the holder.
func startWaiting(t *testing.T, s *testServer, lock string) *process {
	t.Helper()
	p := startLocked(t, s.with("ttl="+steadyTTL.String()), lock)
	p.stderr.next("another node holds the id")
	return p
}

func TestCommandRunsOnOneNodeOfAServer(t *testing.T) {
	onSharedServers(t, func(t *testing.T, s *testServer) {
		lock := filepath.Join(t.TempDir(), "lock")
		first := startLocked(t, s.with("ttl="+steadyTTL.String()), lock)
		first.stdout.next("runs on")
		second := startWaiting(t, s, lock)

		first.signal(os.Kill)
		second.stdout.next("runs on")
		second.stderr.next("; taking over") // as nobody has released the id
		first.exits(-1)
		third := startWaiting(t, s, lock)

		second.signal(syscall.SIGTERM)
		third.stdout.next("runs on")
		second.exits(128 + 9) // deaf to SIGTERM
		fourth := startWaiting(t, s, lock)

		third.signal(syscall.SIGSTOP)
		fourth.stdout.next("runs on")
		fourth.stderr.next("; taking over")
		third.signal(syscall.SIGCONT)
		third.stderr.nextEach("lease lost", "another node holds the id")

		last := uint64(0)
		for _, p := range []*process{first, second, third, fourth} {
			token := tokenIn(t, p)
			if token <= last {
				t.Errorf("token %d follows %d", token, last)
			}
			last = token
			if n := p.stdout.count("runs on"); n != 1 {
				t.Errorf("the command ran %d times on one node: %s", n, p.stdout.all())
			}
		}
		mustNotOverlap(t, first, second, third, fourth)
		third.signal(syscall.SIGTERM)
		third.exits(0)
	})
}

// While the server hangs, nobody renews: the command is gone before the lease
// ends, and runs again when the server goes on.
func TestCommandEndsWithALeaseThatTheServerDoesNotRenew(t *testing.T) {
	onEachServer(t, func(t *testing.T, s *testServer) {
		lock := filepath.Join(t.TempDir(), "lock")
		url := s.with("ttl=" + serverTTL.String())
		node := startLocked(t, url, lock)
		node.stdout.next("runs on")
		watch := start(t, "status", "--watch", "--cluster", s.url)
		watch.stdout.next("hello")
		must(t, s.freeze())
		late := start(t, "status", "--cluster", s.url)
		node.stderr.has("lease lost")
		node.stderr.has("command ended", "signal=killed")
		late.exits(1)
		if got := late.stderr.all(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "the server has not answered within ") {
			t.Errorf("it says %q", got)
		}
		watch.stderr.next("the server has not answered within", "trying on")
		must(t, s.thaw())
		watch.stderr.next("the server answers again")
		node.stdout.next("runs on")

		// One that starts while there is no server says so, and waits.
		must(t, s.stop())
		waiting := startLocked(t, url, lock)
		waiting.stderr.next("level=WARN")
		gone := startLocked(t, url, lock)
		gone.stderr.next("level=WARN")
		gone.signal(syscall.SIGTERM)
		gone.exits(0)
		node.signal(os.Kill) // else either may be first when the server is back
		node.exits(-1)
		must(t, s.start())
		waiting.stdout.next("runs on")
		mustNotOverlap(t, node, waiting)
	})
}

func TestStatusAsksTheServer(t *testing.T) {
	onSharedServers(t, func(t *testing.T, s *testServer) {
		empty := start(t, "status", "--json", "--cluster", s.url)
		empty.exits(0)
		if v := viewIn(t, empty); len(v.Holders)+len(v.Members)+len(v.Modes)+len(v.Problems) != 0 || v.Server == "" {
			t.Errorf("of an empty server status shows %+v", v)
		}
		watch := start(t, "status", "--watch", "--cluster", s.url)
		watch.stdout.next("ID (0)")

		node := startNode(t, s.with("name=work-1"), forever)
		line := strings.Fields(node.stdout.next("hello runs on"))
		watch.stdout.next("hello", line[3], line[5])
		status := start(t, "status", "--json", "--cluster", s.url)
		status.exits(0)
		v := viewIn(t, status)
		if len(v.Holders) != 1 || v.Holders[0].ID != "hello" || v.Holders[0].Node != line[3] || !strings.HasPrefix(line[3], "work-1#") {
			t.Errorf("the holders are %+v, not %s of hello", v.Holders, line[3])
		}
		if s.knowing && (len(v.Members) != 1 || v.Members[0].Node != line[3] || v.Members[0].Since.IsZero()) {
			t.Errorf("the members are %+v, not %s", v.Members, line[3])
		}

		watch.signal(os.Interrupt)
		watch.exits(0)
	})
}

func viewIn(t *testing.T, status *process) (v view) {
	t.Helper()
	must(t, json.Unmarshal([]byte(status.stdout.all()), &v))
	return v
}

func TestBenchMeasuresAServerAndLeavesNothing(t *testing.T) {
	onSharedServers(t, func(t *testing.T, s *testServer) {
		url := s.with("ttl=2s")
		node := startNode(t, s.url, forever)
		node.stdout.next("hello runs on")
		only := "graceful,kill"
		if !s.hears {
			only = "graceful" // the other one takes time
		}
		bench := start(t, "bench", "--rounds", "1", "--only", only, "--json", "--cluster", url)
		bench.exits(0)
		var rep report
		must(t, json.Unmarshal([]byte(bench.stdout.all()), &rep))
		if names := strings.Split(only, ","); len(rep.Results) != len(names) || rep.Results[0].Name != names[0] || rep.Results[len(names)-1].Name != names[len(names)-1] {
			t.Fatalf("there are results for %v", rep.Results)
		}
		for _, r := range rep.Results {
			if r.Rounds < 1 || r.Min <= 0 || r.Min > r.Median || r.Median > r.Max {
				t.Errorf("the figures of %s make no sense: %+v", r.Name, r)
			}
		}
		if left := s.leftBy(t, bench); len(left) > 0 {
			t.Errorf("the bench has left %q", left)
		}
		if n := node.stdout.count("hello runs on"); n != 1 {
			t.Errorf("bench has moved the command of the user: it started %d times", n)
		}
	})
}
