package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"highlander"
	"highlander/cmd/highlander/internal/guard"
	"highlander/gossip"
)

// gossipEngine is the embedded cluster; the zero value is the one among the
// processes of this machine.
type gossipEngine struct{ cfg gossip.Config }

func newGossipEngine(url string) (engine, error) {
	cfg, err := gossip.ParseURL(url)
	if detail := errors.Unwrap(err); detail != nil {
		err = detail // without the words that the source of the URL stands for
	}
	return gossipEngine{cfg}, err
}

// open joins the cluster.
func (e gossipEngine) open(ctx context.Context, by *guard.Guard, log *slog.Logger) (highlander.Cluster, error) {
	cfg := e.cfg
	cfg.Guarded, cfg.Logger = by != nil && guard.Testifies, log
	c, err := gossip.Join(ctx, cfg)
	if err != nil {
		return nil, err // never a *gossip.Cluster that is nil
	}
	return c, nil
}

func (e gossipEngine) leasesRunOut() bool { return e.cfg.Quorum > 0 }

func (e gossipEngine) checkStopWithin(d time.Duration) error { return e.cfg.CheckStopWithin(d) }

func (e gossipEngine) checkRun() error {
	if e.cfg.Observer {
		return errors.New("observer=true: an observer runs nothing; leave it out")
	}
	return nil
}

func (e gossipEngine) checkWitness() error {
	switch {
	case e.cfg.Observer:
		return errors.New("observer=true: an observer votes on nothing; leave it out")
	case e.cfg.Quorum == 0:
		return errors.New("a witness needs quorum=N, as on all nodes: without it no votes are needed when a node cannot be reached")
	}
	return nil
}

// beside returns a node that listens on a port of its own and joins the one
// that e describes, too.
func (e gossipEngine) beside(name, _ string) engine {
	cfg := &e.cfg
	if host, port, err := net.SplitHostPort(cfg.Bind); err == nil {
		ip := net.ParseIP(host)
		cfg.Bind = net.JoinHostPort(listenBeside(ip), "0")
		if ip.IsUnspecified() {
			host = "127.0.0.1"
		}
		if port != "0" {
			cfg.Join = append(slices.Clip(cfg.Join), net.JoinHostPort(host, port))
		}
	}
	cfg.Name, cfg.Advertise = name, ""
	if cfg.Quorum == 0 {
		cfg.Expect = 0
	}
	return e
}

// listenBeside returns the IP to listen on beside a node at ip, which is on
// another machine if it is none of this one's.
func listenBeside(ip net.IP) string {
	addrs, err := net.InterfaceAddrs()
	local := func(addr net.Addr) bool {
		network, ok := addr.(*net.IPNet)
		return ok && network.IP.Equal(ip)
	}
	switch {
	case err != nil || ip.IsUnspecified() || ip.IsLoopback() || slices.ContainsFunc(addrs, local):
		return ip.String()
	case ip.To4() != nil:
		return net.IPv4zero.String()
	}
	return net.IPv6zero.String()
}

// observe joins the cluster as a node that votes on nothing.
func (e gossipEngine) observe(ctx context.Context) (*observer, error) {
	e = e.beside("status", "").(gossipEngine)
	e.cfg.Observer, e.cfg.Logger = true, quietLog
	c, err := gossip.Join(ctx, e.cfg)
	if err != nil {
		return nil, err
	}
	return &observer{
		look:   func(ctx context.Context) (view, error) { return gossipView(ctx, c) },
		every:  100 * time.Millisecond,
		steady: 500 * time.Millisecond,
		nobody: fmt.Errorf("no node of the cluster was found at %s; is one up, with the same label and key?", e.where()),
		close:  c.Close,
	}, nil
}

// where says for people where nodes of the cluster were looked for.
func (e gossipEngine) where() string {
	if e.cfg.Bind == "" && len(e.cfg.Join) == 0 {
		return "127.0.0.1:7946 to 7977"
	}
	return strings.Join(e.cfg.Join, ", ")
}

func gossipView(ctx context.Context, c *gossip.Cluster) (view, error) {
	v := newView("gossip")
	for _, m := range c.Modes() {
		v.Modes = append(v.Modes, newModeView(m))
	}
	v.Problems = problemsOf(v.Modes)
	for _, m := range c.Members() {
		if !m.Observer {
			v.Members = append(v.Members, memberView{Node: m.Name, Addr: m.Addr})
		}
	}
	err := v.addHolders(ctx, c)
	return v, err
}

// measured has nodes join the cluster of the user, or, in quorum mode, form one
// of their own.
func (e gossipEngine) measured() (benchPlan, error) {
	cfg := e.cfg
	if cfg.Quorum == 0 {
		return benchPlan{kind: benchAvailable, id: benchID, idleIDs: 10000, restAfterKill: restAfterKill}, nil
	}
	if cfg.Bind != "" || len(cfg.Join) > 0 {
		return benchPlan{}, errors.New("bench would add voters to a cluster in quorum mode; leave address and join out, and it starts one of its own")
	}
	mode := fleetMode{Quorum: cfg.Quorum, Voters: cmp.Or(cfg.Expect, 2*cfg.Quorum-1), TTL: cmp.Or(cfg.TTL, gossip.DefaultTTL)}
	if mode.Voters == mode.Quorum {
		return benchPlan{}, fmt.Errorf("quorum %d of %d voters: no node can be taken away, so there is nothing to measure; quorum=2 is one to measure", mode.Quorum, mode.Voters)
	}
	return benchPlan{
		kind: benchQuorum, id: benchID, own: true, mode: mode, idleIDs: 10000, restAfterKill: restAfterKill,
		cluster: fmt.Sprintf("embedded, on loopback, quorum %d of %d, TTL %v", mode.Quorum, mode.Voters, mode.TTL),
	}, nil
}
