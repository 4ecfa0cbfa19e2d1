package gossip

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	joinEvery     = time.Second      // between attempts to reach a node that does not answer
	rejoinEvery   = 15 * time.Second // for one that answered, but under another address than it was asked at
	rememberFor   = 24 * time.Hour   // how long a node that was lost is looked for
	maxRemembered = 256
	joinWorkers   = 32
	resolveWithin = 2 * time.Second
)

// joiner looks for the nodes of Config.Join and those that were lost, for as
// long as the cluster is open: so a healed netsplit finds itself.
type joiner struct {
	c          *Cluster
	seeds      []string
	unresolved map[string]bool // seeds, as logged last
	cancel     context.CancelFunc
	ctx        context.Context
	done       chan struct{}

	mu   sync.Mutex
	lost map[string]time.Time // address of a node that was lost, and when
	next map[string]time.Time // address that answered, and when to try it again
}

func newJoiner(c *Cluster) *joiner {
	j := &joiner{c: c, seeds: c.cfg.Join, unresolved: map[string]bool{}, done: make(chan struct{}), lost: map[string]time.Time{}, next: map[string]time.Time{}}
	if c.cfg.Bind == "" && c.cfg.Transport == nil && len(j.seeds) == 0 {
		for port := DefaultPort; port <= lastLoopbackPort; port++ {
			j.seeds = append(j.seeds, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		}
	}
	j.ctx, j.cancel = context.WithCancel(context.Background())
	return j
}

func (j *joiner) hasTargets() bool { return len(j.seeds) > 0 }

func (j *joiner) start() { go j.run() }

// stop ends the search. It does not wait for a node that is being dialed:
// memberlist has no way to break that off but its own end.
func (j *joiner) stop() { j.cancel() }

// remember looks for the node at addr from now on: it was lost.
func (j *joiner) remember(addr string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.lost) < maxRemembered {
		j.lost[addr] = time.Now()
	}
}

func (j *joiner) run() {
	defer close(j.done)
	tick := time.NewTicker(joinEvery)
	defer tick.Stop()
	for {
		j.round()
		select {
		case <-tick.C:
		case <-j.ctx.Done():
			return
		}
	}
}

// round tries every address at which no member is known.
func (j *joiner) round() {
	work := make(chan string)
	var workers sync.WaitGroup
	targets := j.targets()
	for range min(joinWorkers, len(targets)) {
		workers.Go(func() {
			for addr := range work {
				j.try(addr)
			}
		})
	}
	for _, addr := range targets {
		select {
		case work <- addr:
		case <-j.ctx.Done():
		}
	}
	close(work)
	workers.Wait()
}

func (j *joiner) try(addr string) {
	if j.ctx.Err() != nil {
		return
	}
	if _, err := j.c.list.Join([]string{addr}); err != nil {
		return // memberlist has logged it
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.next[addr] = time.Now().Add(rejoinEvery)
}

func (j *joiner) targets() []string {
	known := map[string]bool{j.c.Addr(): true}
	members, _ := j.c.agent.membership()
	for _, m := range members {
		known[m.Addr] = true
	}
	targets := map[string]bool{}
	for _, seed := range j.seeds {
		addrs, err := j.resolve(j.ctx, seed)
		j.noteUnresolved(seed, err)
		for _, addr := range addrs {
			targets[addr] = true
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for addr, at := range j.lost {
		if known[addr] || time.Since(at) > rememberFor {
			delete(j.lost, addr)
		} else {
			targets[addr] = true
		}
	}
	for addr := range known {
		delete(j.next, addr) // should it be lost, it is tried at once
	}
	for addr := range targets {
		if known[addr] || time.Now().Before(j.next[addr]) {
			delete(targets, addr)
		}
	}
	return slices.Sorted(maps.Keys(targets))
}

// checkSeeds returns an error for an address that is certain not to resolve.
// One that may resolve later, as the name server does not answer, is none.
func (j *joiner) checkSeeds(ctx context.Context) error {
	for _, seed := range j.seeds {
		_, err := j.resolve(ctx, seed)
		if dns := new(net.DNSError); errors.As(err, &dns) && dns.IsNotFound {
			return fmt.Errorf("gossip: Config.Join %q: the host does not resolve: %w", seed, err)
		}
	}
	return nil
}

// resolve returns the addresses behind a seed: DNS is asked each time, as the
// nodes may have moved.
func (j *joiner) resolve(ctx context.Context, seed string) ([]string, error) {
	host, port, err := net.SplitHostPort(seed)
	if err != nil {
		return nil, err
	}
	if net.ParseIP(host) != nil {
		return []string{seed}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveWithin)
	defer cancel()
	ips, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return nil, err
	}
	addrs := make([]string, len(ips))
	for i, ip := range ips {
		addrs[i] = net.JoinHostPort(ip, port)
	}
	return addrs, nil
}

// noteUnresolved logs that a seed does not resolve, when that is news.
func (j *joiner) noteUnresolved(seed string, err error) {
	if news := j.unresolved[seed] != (err != nil); !news {
		return
	}
	j.unresolved[seed] = err != nil
	if err != nil {
		j.c.log.Warn("cannot resolve an address to join; it is tried again", "join", seed, "error", err)
	}
}
