package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"highlander"
	"highlander/gossip"
)

const clusterEnv = "HIGHLANDER_CLUSTER"

// addClusterFlag gives cmd the flag that says which cluster to take part in.
func addClusterFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("cluster", os.Getenv(clusterEnv),
		"cluster `URL`, gossip://HOST:PORT?join=A,B&key-file=F; without it the processes of this machine form one (env "+clusterEnv+")")
}

// parseCluster checks a cluster URL and returns what opens it: bad URLs are
// usage errors and start nothing.
func parseCluster(url string, log *slog.Logger) (func(context.Context) (highlander.Cluster, error), error) {
	cfg, err := parseGossip(url)
	if err != nil {
		return nil, err
	}
	cfg.Logger = log
	return opener(cfg), nil
}

func opener(cfg gossip.Config) func(context.Context) (highlander.Cluster, error) {
	return func(ctx context.Context) (highlander.Cluster, error) {
		c, err := gossip.Join(ctx, cfg)
		if err != nil {
			return nil, err // not a nil *gossip.Cluster in an interface
		}
		return c, nil
	}
}

func parseGossip(url string) (gossip.Config, error) {
	if url == "" {
		return gossip.Config{}, nil
	}
	scheme, _, ok := strings.Cut(url, "://")
	switch {
	case !ok:
		return gossip.Config{}, usageErrorf("--cluster %q is not a URL; gossip://HOST:PORT is one", url)
	case scheme != "gossip":
		return gossip.Config{}, usageErrorf("--cluster %q: the scheme %q is not known; gossip is allowed", url, scheme)
	}
	cfg, err := gossip.ParseURL(url)
	if err != nil {
		return gossip.Config{}, usageErrorf("--cluster: %w", err)
	}
	return cfg, nil
}

// parseBeside is parseCluster for a node that stands beside the one that the
// URL describes, such as an observer: it takes a port of its own and joins that
// one, too.
func parseBeside(url, name string, observer bool) (func(context.Context) (highlander.Cluster, error), error) {
	cfg, err := parseGossip(url)
	if err != nil {
		return nil, err
	}
	if host, port, err := net.SplitHostPort(cfg.Bind); err == nil {
		cfg.Bind = net.JoinHostPort(host, "0")
		if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
			host = "127.0.0.1"
		}
		if port != "0" {
			cfg.Join = append(cfg.Join, net.JoinHostPort(host, port))
		}
	}
	cfg.Name, cfg.Observer, cfg.Expect, cfg.Advertise = name, observer, 0, ""
	cfg.Logger = slog.New(slog.DiscardHandler)
	return opener(cfg), nil
}
