package gossip

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"highlander"
	"highlander/internal/claims"
	leases "highlander/internal/lease"
	"highlander/internal/nodename"
)

const (
	settleTime   = time.Second            // how long the first node looks for others
	closeTimeout = 500 * time.Millisecond // for the last words, and again for leaving
	strangerFor  = 5 * joinEvery          // how long a node of other rules counts as there; it is tried each joinEvery
)

// Cluster is this node's part of the cluster. It implements
// highlander.Cluster; all methods may be called concurrently.
type Cluster struct {
	cfg  Config
	name string
	addr string
	meta nodeMeta // of this node
	log  *slog.Logger

	secret [32]byte // behind meta.certificate

	agent     *agent
	list      *memberlist.Memberlist
	transport *muxTransport
	joiner    *joiner
	traps     *tripwire
	keys      *keys
	dropped   *dropLog

	closeOnce sync.Once
	closeErr  error
}

var _ highlander.Cluster = (*Cluster)(nil)

// Member is a node in view.
type Member struct {
	Name     string // as in Holder.Node
	Addr     string // host:port
	Observer bool
	Self     bool

	rules rules
}

// Join binds, finds other nodes and returns once it has reached one, or
// Config.Expect of them, or after a settle time when it is the first; in quorum
// mode, once Config.Quorum of them are there. While there are nodes of another
// mode, Quorum, Expect or TTL, which it refuses, it does not return. It fails if
// the configuration is bad, the address cannot be bound, or ctx ends before
// that. Nodes that are not there yet are looked for until Close.
func Join(ctx context.Context, cfg Config) (*Cluster, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := checkSeeds(ctx, cfg.Join); err != nil {
		return nil, err
	}
	c, err := open(cfg)
	if err != nil {
		return nil, err
	}
	c.joiner.start()
	err = c.settle(ctx)
	if err == nil {
		err = c.outwaitStrangers(ctx)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	members, _ := c.agent.membership()
	c.log.Info("joined the cluster", "voters", c.rules().inView(members))
	return c, nil
}

// open binds and starts everything but the search for others; cfg is checked.
func open(cfg Config) (*Cluster, error) {
	incarnation := nodename.NewIncarnation()
	name := nodename.Join(cfg.Name, incarnation)
	c := &Cluster{cfg: cfg, name: name, meta: cfg.meta(), log: cfg.Logger.With("node", name)}
	if !cfg.Observer {
		c.secret = newSecret()
		c.meta.certificate = sha256.Sum256(c.secret[:])
	}
	c.dropped = &dropLog{log: c.log}
	var err error
	if c.keys, err = newKeys(cfg, c.log); err != nil {
		return nil, err
	}
	inner := cfg.Transport
	if inner == nil {
		net, err := bind(cfg, c.dropped.logger())
		if err != nil {
			return nil, err
		}
		inner = net
	}
	c.traps = &tripwire{label: cfg.Label, self: name, watchers: map[string]*watcher{}}
	c.agent = newAgent(c, cfg.claims(incarnation))
	c.traps.gone = c.agent.processGone
	c.transport = newMuxTransport(inner, headerRules{cfg.Label, c.keys.ring != nil}, c.traps.serve, c.takeCertificate, c.dropped.count)
	c.traps.dial = c.transport.dialStream
	if c.list, err = memberlist.Create(c.memberlistConfig()); err != nil {
		close(c.agent.stopped) // it was never started
		c.transport.Shutdown()
		return nil, fmt.Errorf("gossip: start membership: %w", err)
	}
	c.addr = c.list.LocalNode().Address()
	c.joiner = newJoiner(c)
	c.agent.start()
	c.keys.start()
	return c, nil
}

// memberlistConfig is tuned so that a frozen or cut-off node is given up within
// 3 s in a small cluster: a probe round (2 x ProbeInterval), a suspicion of
// SuspicionMult x ProbeInterval, and the doubtTimeout of the view. That can be
// short, as a node in doubt has another chance to answer.
func (c *Cluster) memberlistConfig() *memberlist.Config {
	mc := memberlist.DefaultLANConfig()
	mc.Name = c.name
	mc.Label = c.cfg.Label
	mc.Transport = c.transport
	mc.TCPTimeout = 2 * time.Second
	mc.ProbeInterval = 400 * time.Millisecond
	mc.ProbeTimeout = 200 * time.Millisecond
	mc.SuspicionMult = 2
	mc.AwarenessMaxMultiplier = 8 // less, and an overloaded node goes on accusing live ones
	mc.GossipInterval = 100 * time.Millisecond
	mc.PushPullInterval = 15 * time.Second
	mc.EnableCompression = false
	mc.Delegate = c.agent
	mc.Events = c.agent
	mc.Alive = c.agent
	mc.Logger = c.dropped.logger()
	if ip, port, err := splitIPPort(c.cfg.Advertise); err == nil {
		mc.AdvertiseAddr, mc.AdvertisePort = ip.String(), port
	}
	mc.Keyring = c.keys.ring
	if c.cfg.tune != nil {
		c.cfg.tune(mc)
	}
	return mc
}

// settle waits until this node may make claims. It has tried all addresses once
// by then: of nodes that boot together, each meets those that were there before
// it, so that no two of them win without the other's vote.
func (c *Cluster) settle(ctx context.Context) error {
	want := c.cfg.waitFor()
	var settled <-chan time.Time
	if want == 0 {
		if !c.joiner.hasTargets() {
			return nil // nobody to wait for: others join this one
		}
		settled = time.After(cmp.Or(c.cfg.settle, settleTime))
		want = 2
	}
	tried := c.joiner.tried
	remind := time.NewTicker(10 * time.Second)
	defer remind.Stop()
	for {
		voters, changed := c.agent.voters()
		if tried == nil && voters >= want && (want == 1 || c.agent.hasMet()) {
			return nil
		}
		select {
		case <-changed:
		case <-tried:
			tried = nil
		case <-settled:
			return nil
		case <-remind.C:
			c.log.Info("waiting for other nodes", "nodes", voters, "expect", want)
		case <-ctx.Done():
			if _, err := c.dropped.lastRefused(strangerFor); err != nil {
				return fmt.Errorf("gossip: join: %d of %d nodes found, and %w: %w", voters, want, err, context.Cause(ctx))
			}
			return fmt.Errorf("gossip: join: %d of %d nodes found: %w", voters, want, context.Cause(ctx))
		}
	}
}

// outwaitStrangers waits until no node of other rules was met for a while. It
// would make no difference to the votes here, but that one may elect a holder,
// too.
func (c *Cluster) outwaitStrangers(ctx context.Context) error {
	look := time.NewTicker(strangerFor / 10)
	defer look.Stop()
	for _, err := c.dropped.lastRefused(strangerFor); err != nil; _, err = c.dropped.lastRefused(strangerFor) {
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("gossip: join: all nodes need the same settings, but %w: %w", err, context.Cause(ctx))
		}
	}
	return nil
}

// inQuorumMode says whether this node votes and makes claims in quorum mode: an
// observer does neither.
func (a *agent) inQuorumMode() bool { return a.c.rules() != (rules{}) }

// rules are those that this node votes and makes claims by.
func (c *Cluster) rules() rules { return c.meta.rules }

// Node returns the name of this node, unique per start: Config.Name and a
// random number.
func (c *Cluster) Node() string { return c.name }

// Addr returns the host:port at which other nodes reach this one.
func (c *Cluster) Addr() string { return c.addr }

// Members returns the nodes in view, this one included, sorted by name.
func (c *Cluster) Members() []Member {
	members, _ := c.agent.membership()
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return members
}

// Mode is how the voters of a cluster decide.
type Mode struct {
	Quorum int           // votes that a lease takes; zero: available mode
	Voters int           // that there are: Config.Expect, or 2*Quorum-1; zero in available mode
	TTL    time.Duration // zero in available mode
	InView int           // voters in view; in quorum mode those that share a name do not count
}

// Modes returns the mode of the voters in view. There is one, but where nodes
// have different settings, which keep apart; none if there are no voters.
func (c *Cluster) Modes() []Mode {
	byRules := map[rules][]Member{}
	for _, m := range c.Members() {
		if !m.Observer {
			byRules[m.rules] = append(byRules[m.rules], m)
		}
	}
	var modes []Mode
	for r, members := range byRules {
		modes = append(modes, Mode{Quorum: r.quorum, Voters: r.voters, TTL: r.ttl, InView: r.inView(members)})
	}
	slices.SortFunc(modes, func(a, b Mode) int {
		return cmp.Or(-cmp.Compare(a.InView, b.InView), cmp.Compare(a.Quorum, b.Quorum), cmp.Compare(a.Voters, b.Voters), cmp.Compare(a.TTL, b.TTL))
	})
	return modes
}

// Dropped returns how many messages and connections were dropped because they
// were malformed, not for this cluster, or too many.
func (c *Cluster) Dropped() uint64 { return c.dropped.total() }

// Acquire implements highlander.Cluster. In available mode the lease does not
// run out: Expires is always zero. It is lost, with highlander.ErrConflict, when a
// netsplit heals and the other side's holder is kept.
//
// In quorum mode it runs out Config.TTL after it was renewed last. It is lost,
// with highlander.ErrLeaseLost, StopWithin before that moment; until Release, but
// not longer than until then, nobody else gets it. A StopWithin that does not fit
// into the TTL is refused (Config.CheckStopWithin).
func (c *Cluster) Acquire(ctx context.Context, id string, opts highlander.AcquireOptions) (highlander.Lease, error) {
	if err := c.checkAcquire(id, opts); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	w := &lease{agent: c.agent, id: id, meta: opts.Meta, stopWithin: opts.StopWithin, granted: make(chan struct{}), ending: leases.NewEnding()}
	if !c.agent.do(func(now claims.Instant) { c.agent.claim(now, w) }) {
		return nil, fmt.Errorf("acquire %q: %w", id, highlander.ErrClosed)
	}
	select {
	case <-w.granted:
		return w, nil
	case <-w.ending.Done():
		select {
		case <-w.granted: // and ended since
			return w, nil
		default:
			return nil, fmt.Errorf("acquire %q: %w", id, highlander.ErrClosed)
		}
	case <-ctx.Done():
		w.Release(context.WithoutCancel(ctx))
		return nil, context.Cause(ctx)
	}
}

func (c *Cluster) checkAcquire(id string, opts highlander.AcquireOptions) error {
	if err := highlander.ValidateID(id); err != nil {
		return fmt.Errorf("acquire: %w", err)
	}
	if err := opts.Validate(); err != nil {
		return fmt.Errorf("acquire %q: %w", id, err)
	}
	if c.cfg.Observer {
		return fmt.Errorf("acquire %q: this node is an observer; it cannot hold an id", id)
	}
	if err := c.rules().checkStopWithin(opts.StopWithin); err != nil {
		return fmt.Errorf("acquire %q: AcquireOptions.StopWithin: %w", id, err)
	}
	return nil
}

// Lookup implements highlander.Cluster. It answers from this node's memory.
func (c *Cluster) Lookup(ctx context.Context, id string) (highlander.Holder, error) {
	if err := highlander.ValidateID(id); err != nil {
		return highlander.Holder{}, fmt.Errorf("look up: %w", err)
	}
	var h highlander.Holder
	var held bool
	if !c.agent.do(func(claims.Instant) { h, held = c.agent.holder(id) }) {
		return h, fmt.Errorf("look up %q: %w", id, highlander.ErrClosed)
	}
	if !held {
		return h, fmt.Errorf("look up %q: %w", id, highlander.ErrNotHeld)
	}
	return h, nil
}

// Holders implements highlander.Cluster. It answers from this node's memory.
func (c *Cluster) Holders(ctx context.Context) ([]highlander.Holder, error) {
	var holders []highlander.Holder
	if !c.agent.do(func(claims.Instant) { holders = c.agent.holders() }) {
		return nil, fmt.Errorf("list holders: %w", highlander.ErrClosed)
	}
	return holders, nil
}

// Close implements highlander.Cluster: it ends the leases and tells the other
// nodes, which takes a second at the most.
func (c *Cluster) Close() error {
	c.closeOnce.Do(func() {
		c.joiner.stop()
		c.agent.endLeases()
		if c.list.NumMembers() > 1 {
			if err := c.list.Leave(closeTimeout); err != nil {
				c.log.Debug("membership: nobody has heard the leave message", "error", err)
			}
		}
		c.shutdown()
		c.log.Info("left the cluster")
	})
	return c.closeErr
}

// shutdown ends all that open and Join have started, and waits.
func (c *Cluster) shutdown() {
	c.transport.hangUp()
	c.keys.stop()
	c.agent.stop()
	c.traps.close()
	c.closeErr = c.list.Shutdown()
	c.joiner.wait()
}
