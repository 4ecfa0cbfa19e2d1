package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"highlander"
	"highlander/gossip"
)

const clusterEnv = "HIGHLANDER_CLUSTER"

const clusterUsage = `the cluster, a ` + "`URL`" + `: gossip://IP:PORT?PARAMETER=VALUE&..., where IP:PORT is
what to listen on; without it the processes of this machine form one
(env ` + clusterEnv + `). The parameters:
  join=HOST:PORT,...  nodes to join, one of them is enough
  key-file=FILE       encrypt with the keys in it, the first one; needed beyond
                      loopback; read again when it changes
  label=LABEL         name of the cluster; others are strangers
  name=NAME           name of this node; the host name by default. With
                      quorum: unique, and the same at each start
  expect=N            wait until N nodes are there before taking part; with
                      quorum: how many voters there are (2*quorum-1)
  quorum=N            never run two: it takes N voters to hold an id, and a
                      side of the network with fewer stops what it runs
  ttl=TIME            with quorum: how long an id is held without them (12s)
  advertise=IP:PORT   where others reach this node, if not at IP:PORT
  insecure=true       do without a key`

// clusterFlag is the flag that says which cluster to take part in.
type clusterFlag struct {
	value string
	flag  *pflag.Flag
}

func addClusterFlag(cmd *cobra.Command) *clusterFlag {
	f := &clusterFlag{}
	cmd.Flags().StringVar(&f.value, "cluster", "", clusterUsage)
	f.flag = cmd.Flags().Lookup("cluster")
	return f
}

// url returns the URL and where it was given.
func (f *clusterFlag) url() (source, url string) {
	if url := os.Getenv(clusterEnv); url != "" && !f.flag.Changed {
		return clusterEnv, url
	}
	return "--cluster", f.value
}

// parse checks the URL: a bad one is a usage error and starts nothing.
func (f *clusterFlag) parse() (endpoint, error) { return parseEndpoint(f.url()) }

// endpoint is where and how to take part in a cluster.
type endpoint struct {
	source string // where the user has it from, for errors
	url    string
	cfg    gossip.Config
}

func parseEndpoint(source, url string) (endpoint, error) {
	e := endpoint{source: source, url: url}
	if url == "" {
		return e, nil
	}
	scheme, _, ok := strings.Cut(url, "://")
	switch {
	case !ok:
		return e, usageErrorf("%s %q is not a URL; gossip://IP:PORT is one", source, url)
	case scheme != "gossip":
		return e, usageErrorf("%s: the scheme %q is not known; gossip is allowed, as in gossip://IP:PORT", source, scheme)
	}
	var err error
	if e.cfg, err = gossip.ParseURL(url); err != nil {
		if detail := errors.Unwrap(err); detail != nil {
			err = detail // without the words that source stands for
		}
		return e, usageErrorf("%s: %w", source, err)
	}
	return e, nil
}

// open joins the cluster.
func (e endpoint) open(ctx context.Context, log *slog.Logger) (highlander.Cluster, error) {
	cfg := e.cfg
	cfg.Logger = log
	c, err := gossip.Join(ctx, cfg)
	if err != nil {
		return nil, &openError{source: e.source, err: err}
	}
	return c, nil
}

// openError is a cluster that could not be joined, in the words of the URL.
type openError struct {
	source string
	err    error
}

var urlWords = strings.NewReplacer("gossip: ", "", "Config.Bind", "address", "Config.Join", "join", "Config.KeyFile", "key-file")

func (e *openError) Error() string { return e.source + ": " + urlWords.Replace(e.err.Error()) }
func (e *openError) Unwrap() error { return e.err }

// beside returns the endpoint of a node that stands beside the one that e
// describes: it listens on a port of its own and joins that one, too.
func (e endpoint) beside(name string) endpoint {
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

// where says for people where nodes of the cluster were looked for.
func (e endpoint) where() string {
	if e.cfg.Bind == "" && len(e.cfg.Join) == 0 {
		return "127.0.0.1:7946 to 7977"
	}
	return strings.Join(e.cfg.Join, ", ")
}
