package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"highlander"
	"highlander/cmd/highlander/internal/guard"
)

const clusterEnv = "HIGHLANDER_CLUSTER"

const clusterUsage = `the cluster, a ` + "`URL`" + `: gossip://IP:PORT, postgres://USER@HOST/DATABASE,
etcd://HOST:PORT/PREFIX or kubernetes://NAMESPACE; without it the
processes of this machine form one (env ` + clusterEnv + `).
"highlander help clusters" lists the parameters of each`

// engine is one kind of cluster, as a URL describes it. Nothing here connects to
// anything before open and observe.
type engine interface {
	// open takes part in the cluster. A guard, which may be nil, outlives this
	// process and ends all that it ran.
	open(ctx context.Context, by *guard.Guard, log *slog.Logger) (highlander.Cluster, error)

	// beside returns the engine of another node, for the same cluster, or, with a
	// space of its own, for another one on the same server.
	beside(name, space string) engine

	// observe returns what status looks through, which changes nothing.
	observe(ctx context.Context) (*observer, error)

	// leasesRunOut says whether a lease ends when it is not renewed, and not only
	// when others have given its holder up.
	leasesRunOut() bool

	// checkStopWithin returns an error, with the arithmetic, if a child that takes
	// d to stop does not fit into what a lease lasts.
	checkStopWithin(d time.Duration) error

	checkRun() error     // why a node cannot run anything
	checkWitness() error // why it cannot be a witness

	// measured says how bench measures the cluster, or why it cannot.
	measured() (benchPlan, error)
}

// engines are the kinds of cluster by the scheme of their URLs. Each function
// checks a URL.
var engines = map[string]func(url string) (engine, error){
	"gossip":     newGossipEngine,
	"postgres":   newPostgresEngine,
	"postgresql": newPostgresEngine,
	"kubernetes": newKubernetesEngine,
	"etcd":       newEtcdEngine,
	"etcds":      newEtcdEngine,
}

// endpoint is a cluster as the user has named it.
type endpoint struct {
	source string // where the user has named it, for errors
	url    string // empty: nowhere
	engine
}

func parseEndpoint(source, url string) (endpoint, error) {
	at := endpoint{source: source, url: url}
	if url == "" {
		at.engine = gossipEngine{}
		return at, nil
	}
	scheme, _, ok := strings.Cut(url, "://")
	if !ok {
		shown := fmt.Sprintf(" %q", url)
		if strings.Contains(url, "@") || strings.Contains(url, "password") {
			shown = ": what is given" // it may have a password in it
		}
		return at, usageErrorf("%s%s is not a URL; gossip://IP:PORT is one", source, shown)
	}
	parse, ok := engines[scheme]
	if !ok {
		return at, usageErrorf("%s: the scheme %q is not known; %s are allowed, as in gossip://IP:PORT", source, scheme, strings.Join(slices.Sorted(maps.Keys(engines)), ", "))
	}
	var err error
	if at.engine, err = parse(url); err != nil {
		return at, usageErrorf("%s: %w", source, err)
	}
	return at, nil
}

// open takes part in the cluster; an error says where it was named.
func (at endpoint) open(ctx context.Context, by *guard.Guard, log *slog.Logger) (highlander.Cluster, error) {
	c, err := at.engine.open(ctx, by, log)
	if err != nil {
		return nil, &openError{source: at.source, err: err}
	}
	return c, nil
}

// observe returns what status looks through; an error says where the cluster
// was named.
func (at endpoint) observe(ctx context.Context) (*observer, error) {
	o, err := at.engine.observe(ctx)
	if err != nil {
		return nil, &openError{source: at.source, err: err}
	}
	return o, nil
}

// usable makes a usage error of what an engine says against its use.
func (at endpoint) usable(err error) error {
	if err != nil {
		return usageErrorf("%s: %w", at.source, err)
	}
	return nil
}

// openError is a cluster that could not be opened, in the words of the URL.
type openError struct {
	source string
	err    error
}

var urlWords = strings.NewReplacer("gossip: ", "", "Config.Bind", "address", "Config.Join", "join", "Config.KeyFile", "key-file")

func (e *openError) Error() string { return e.source + ": " + urlWords.Replace(e.err.Error()) }
func (e *openError) Unwrap() error { return e.err }

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

// parse checks the URL: a bad one is a usage error and starts nothing. An empty one
// is a variable that is not set, as a rule: a cluster of this machine alone, which
// is what no flag means, would run the command on each machine.
func (f *clusterFlag) parse() (endpoint, error) {
	source, url := f.url()
	if url == "" && f.flag.Changed {
		return endpoint{}, usageErrorf("%s is empty; give a URL such as gossip://IP:PORT, or leave it out for a cluster of this machine", source)
	}
	return parseEndpoint(source, url)
}
