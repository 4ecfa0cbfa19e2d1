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

	"highlander/internal/claims"
)

const (
	joinEvery     = time.Second      // between attempts to reach a node that does not answer
	rejoinEvery   = 15 * time.Second // for one that answered, but under another address than it was asked at
	rememberFor   = 24 * time.Hour   // how long a node that was lost is looked for
	maxRemembered = 256
	joinWorkers   = 128 // so that even that many that do not answer are all tried within 5 s
	resolveWithin = 2 * time.Second
)

// joiner looks for the nodes of Config.Join and those that were lost, for as
// long as the cluster is open: so a healed netsplit finds itself.
type joiner struct {
	c          *Cluster
	seeds      []string
	unresolved map[string]bool // seeds, as logged last
	ctx        context.Context
	stop       context.CancelFunc
	running    sync.WaitGroup
	tried      chan struct{} // closed when all seeds were tried once, and those found are in view

	mu   sync.Mutex
	lost map[string]time.Time // address of a node that was lost, and when
	next map[string]time.Time // address that answered, and when to try it again
}

func newJoiner(c *Cluster) *joiner {
	j := &joiner{c: c, seeds: c.cfg.Join, unresolved: map[string]bool{}, tried: make(chan struct{}), lost: map[string]time.Time{}, next: map[string]time.Time{}}
	if c.cfg.Bind == "" && c.cfg.Transport == nil && len(j.seeds) == 0 {
		for port := DefaultPort; port <= lastLoopbackPort; port++ {
			j.seeds = append(j.seeds, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		}
	}
	j.ctx, j.stop = context.WithCancel(context.Background())
	return j
}

func (j *joiner) hasTargets() bool { return len(j.seeds) > 0 }

func (j *joiner) start() { j.running.Go(j.run) }

// wait waits until the search has ended, after stop.
func (j *joiner) wait() { j.running.Wait() }

// remember looks for the node at addr from now on: it was lost. If there are
// too many, the one that was lost first is given up.
func (j *joiner) remember(addr string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lost[addr] = time.Now()
	if len(j.lost) > maxRemembered {
		delete(j.lost, slices.MinFunc(slices.Collect(maps.Keys(j.lost)), func(a, b string) int { return j.lost[a].Compare(j.lost[b]) }))
	}
}

func (j *joiner) run() {
	tick := time.NewTicker(joinEvery)
	defer tick.Stop()
	j.round()
	j.c.agent.post(func(claims.Instant) { close(j.tried) }) // after those that were found
	for {
		select {
		case <-tick.C:
			j.round()
		case <-j.ctx.Done():
			return
		}
	}
}

// round tries every address at which no member is known, and waits.
func (j *joiner) round() {
	var trying sync.WaitGroup
	slots := make(chan struct{}, joinWorkers)
	for _, addr := range j.targets() {
		slots <- struct{}{}
		trying.Go(func() {
			j.try(addr)
			<-slots
		})
	}
	trying.Wait()
}

func (j *joiner) try(addr string) {
	if j.ctx.Err() != nil {
		return
	}
	before, _ := j.c.dropped.lastRefused(strangerFor)
	if _, err := j.c.list.Join([]string{addr}); err != nil {
		return // memberlist has logged it
	}
	if after, _ := j.c.dropped.lastRefused(strangerFor); after > before {
		return // it is, or knows, a node of other rules, which may change
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.next[addr] = time.Now().Add(rejoinEvery)
}

func (j *joiner) targets() []string {
	targets := j.resolveSeeds()
	known := map[string]bool{j.c.Addr(): true}
	members, _ := j.c.agent.membership()
	for _, m := range members {
		known[m.Addr] = true
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
	for addr, at := range j.next {
		if known[addr] || !targets[addr] || time.Now().After(at) { // should it be lost, it is tried at once
			delete(j.next, addr)
		}
	}
	for addr := range targets {
		if _, later := j.next[addr]; later || known[addr] {
			delete(targets, addr)
		}
	}
	return slices.Sorted(maps.Keys(targets))
}

// resolveSeeds returns the addresses behind all seeds.
func (j *joiner) resolveSeeds() map[string]bool {
	found := make([][]string, len(j.seeds))
	failed := make([]error, len(j.seeds))
	var resolving sync.WaitGroup
	for i, seed := range j.seeds {
		resolving.Go(func() { found[i], failed[i] = resolve(j.ctx, seed) })
	}
	resolving.Wait()
	targets := map[string]bool{}
	for i, seed := range j.seeds {
		j.noteUnresolved(seed, failed[i])
		for _, addr := range found[i] {
			targets[addr] = true
		}
	}
	return targets
}

// checkSeeds returns an error if none of the addresses can ever be reached, as
// their hosts are not known: that is a mistake. If only some are, or the name
// server does not answer, the others do; a host may get its record later, as a
// replica does that starts together with this one.
func checkSeeds(ctx context.Context, seeds []string) error {
	var wrong error
	for _, seed := range seeds {
		_, err := resolve(ctx, seed)
		if dns := new(net.DNSError); !errors.As(err, &dns) || !dns.IsNotFound {
			return nil
		}
		if wrong == nil {
			wrong = fmt.Errorf("gossip: Config.Join %q: the host does not resolve: %w", seed, err)
		}
	}
	return wrong
}

// resolve returns the addresses behind a seed: DNS is asked each time, as the
// nodes may have moved.
func resolve(ctx context.Context, seed string) ([]string, error) {
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
	if news := j.unresolved[seed] != (err != nil); !news || j.ctx.Err() != nil {
		return
	}
	j.unresolved[seed] = err != nil
	if err != nil {
		j.c.log.Warn("cannot resolve an address to join; it is tried again", "join", seed, "error", err)
	}
}
