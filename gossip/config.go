package gossip

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"

	"highlander/internal/claims"
	"highlander/internal/nodename"
)

const (
	// DefaultLabel is the label of a cluster that was given none.
	DefaultLabel = "highlander"

	// DefaultPort is the port of an address that has none.
	DefaultPort = 7946

	// The ports that nodes without any configuration share on loopback.
	lastLoopbackPort = 7977

	// DefaultTTL is how long a lease lasts in quorum mode if Config.TTL is zero:
	// highlander.DefaultShutdown fits into it.
	DefaultTTL = 12 * time.Second

	minTTL    = time.Second
	maxTTL    = 10 * time.Minute
	maxVoters = 1024

	maxLabelLen = 255
)

// Config says how a node takes part in a cluster. The zero value is a cluster
// among the processes of this machine: each binds the first free port of
// 127.0.0.1:7946-7977 and joins whoever is on the others.
type Config struct {
	// Name is the first part of the node's name; the host name if empty. Nodes
	// may share it: the second part is random. But in quorum mode voters are
	// counted by it: it must be the same at each start, and no two running
	// voters may share it, or neither of them counts.
	Name string

	// Label names the cluster; DefaultLabel if empty. Nodes with another label
	// are strangers.
	Label string

	// Bind is the IP:port to listen on, TCP and UDP. Port 0 takes a free one.
	Bind string

	// Advertise is the IP:port at which others reach this node, where that is
	// not Bind. A Bind to all addresses advertises a private one by default.
	Advertise string

	// Join lists nodes to join, host:port; one is enough. A host may be a DNS
	// name with many records. This node may be among them. They are tried for
	// as long as the cluster is open.
	Join []string

	// Keys encrypt all traffic: 16, 24 or 32 bytes each for AES-128, -192 or
	// -256. The first one encrypts, all of them decrypt.
	Keys [][]byte

	// KeyFile names a file that has the keys, in place of Keys: one per line,
	// base64 or hex; blank lines and lines that start with '#' are skipped; others
	// than the owner must not be able to get at it. It is looked at every second,
	// so that keys can be changed while the node runs; what is wrong with it then
	// is logged, and the keys stay as they are.
	KeyFile string

	// Expect is how many voters must be in view, this one included, before
	// Join returns. Zero: any one other, or none after a settle time.
	//
	// In quorum mode it is how many voters the cluster has, those included that
	// are down: the number that Quorum must be above half of, and that no more
	// names than that may vote for. Zero: 2*Quorum-1. It says nothing about
	// Join, which waits for Quorum of them.
	Expect int

	// Quorum turns quorum mode on: a lease takes the votes of that many voters
	// and runs out TTL after it was renewed last, so that there are never two
	// holders, whatever happens to the network. The price is that a side with
	// fewer voters runs nothing, and that a crash is noticed after TTL. All nodes
	// of the cluster need the same Quorum, Expect and TTL. Zero: available mode.
	Quorum int

	// TTL is how long a lease lasts without renewal, in quorum mode: 1 s to
	// 10 min; DefaultTTL if zero. The time that a child may take to stop must fit
	// into it: see CheckStopWithin.
	TTL time.Duration

	// Guarded says that somebody outlives this process, ends all that it ran and
	// hands out its Certificate then, as the guard of highlander run does. Where
	// others would take a refused connection for the end of this node, they wait a
	// quarter of a second for that word: what it ran may outlive it by a moment.
	Guarded bool

	// Observer nodes see everything, vote on nothing and cannot Acquire.
	Observer bool

	// Insecure allows a Bind beyond loopback without Keys or a KeyFile.
	Insecure bool

	// Logger is where membership and take-overs are logged; slog.Default() if
	// nil.
	Logger *slog.Logger

	// Transport replaces the network, such as for the injection of faults. It
	// must be bound already; Bind and Advertise are then not used. Close shuts
	// it down; when Join fails, that is left to the caller.
	Transport memberlist.NodeAwareTransport

	tune     func(*memberlist.Config) // for tests
	patience time.Duration            // for tests: how long guards may take to testify, and nodes to answer
	settle   time.Duration            // for tests: in place of settleTime
	up       func() time.Duration     // the clock by which leases end; boottime.Now but in tests
}

// withDefaults returns cfg with its empty fields filled in, or what is wrong
// with it.
func (cfg Config) withDefaults() (Config, error) {
	if err := cfg.check(func(field string) string { return "Config." + field }); err != nil {
		return cfg, fmt.Errorf("gossip: %w", err)
	}
	name, err := nodename.OrHost("Config.Name", cfg.Name)
	if err != nil {
		return cfg, fmt.Errorf("gossip: %w", err)
	}
	cfg.Name = name
	if cfg.Label == "" {
		cfg.Label = DefaultLabel
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	cfg.TTL = cfg.rules().ttl
	cfg.Join = slices.Clone(cfg.Join)
	for i, addr := range cfg.Join {
		cfg.Join[i], _ = withDefaultPort(addr) // was checked
	}
	return cfg, nil
}

// naming says what a field is called where the user wrote it.
type naming func(field string) string

// check returns the first thing that is wrong with cfg.
func (cfg Config) check(name naming) error {
	return cmp.Or(cfg.checkNames(name), cfg.checkBind(name), cfg.checkAdvertise(name), cfg.checkJoin(name), cfg.checkKeys(name), cfg.checkExpect(name), cfg.checkQuorum(name))
}

func (cfg Config) checkNames(name naming) error {
	if err := nodename.Check(name("Name"), cfg.Name); err != nil {
		return err
	}
	if len(cfg.Label) > maxLabelLen {
		return fmt.Errorf("%s has %d bytes; at most %d are allowed", name("Label"), len(cfg.Label), maxLabelLen)
	}
	return nil
}

func (cfg Config) checkBind(name naming) error {
	if cfg.Transport != nil || cfg.Bind == "" {
		return nil
	}
	ip, _, err := splitIPPort(cfg.Bind)
	if err != nil {
		return fmt.Errorf("%s %q: %w", name("Bind"), cfg.Bind, err)
	}
	if !ip.IsLoopback() && len(cfg.Keys) == 0 && cfg.KeyFile == "" && !cfg.Insecure {
		return fmt.Errorf("%s %s is reachable from other machines, and there is no key; set %s, or %s to do without",
			name("Bind"), cfg.Bind, name("Keys"), name("Insecure"))
	}
	return nil
}

func (cfg Config) checkAdvertise(name naming) error {
	if cfg.Advertise == "" {
		if ip, _, err := splitIPPort(cfg.Bind); err == nil && ip.IsUnspecified() && ip.To4() == nil && cfg.Transport == nil {
			return fmt.Errorf("%s is empty, and nobody can reach %s %s; an IP:PORT is needed", name("Advertise"), name("Bind"), cfg.Bind)
		}
		return nil
	}
	switch ip, port, err := splitIPPort(cfg.Advertise); {
	case err != nil:
		return fmt.Errorf("%s %q: %w", name("Advertise"), cfg.Advertise, err)
	case port == 0 || ip.IsUnspecified():
		return fmt.Errorf("%s %q: others cannot reach that; an IP and a port other than 0 are needed", name("Advertise"), cfg.Advertise)
	}
	return nil
}

func (cfg Config) checkJoin(name naming) error {
	for _, addr := range cfg.Join {
		if _, err := withDefaultPort(addr); err != nil {
			return fmt.Errorf("%s %q: %w; HOST and HOST:PORT are allowed", name("Join"), addr, err)
		}
	}
	return nil
}

func (cfg Config) checkKeys(name naming) error {
	for i, key := range cfg.Keys {
		if err := memberlist.ValidateKey(key); err != nil {
			return fmt.Errorf("%s: key %d has %d bytes; 16, 24 and 32 are allowed", name("Keys"), i+1, len(key))
		}
	}
	if cfg.KeyFile == "" {
		return nil
	}
	if len(cfg.Keys) > 0 {
		return fmt.Errorf("%s and %s are both set; one of them is allowed", name("Keys"), name("KeyFile"))
	}
	if _, err := readKeyFile(cfg.KeyFile); err != nil {
		return fmt.Errorf("%s %s: %w", name("KeyFile"), cfg.KeyFile, err)
	}
	return nil
}

func (cfg Config) checkExpect(name naming) error {
	if cfg.Expect < 0 {
		return fmt.Errorf("%s is %d; it must not be negative", name("Expect"), cfg.Expect)
	}
	return nil
}

func (cfg Config) checkQuorum(name naming) error {
	r := cfg.rules()
	switch {
	case cfg.Quorum < 0:
		return fmt.Errorf("%s is %d; it must not be negative", name("Quorum"), cfg.Quorum)
	case cfg.Quorum == 0 && cfg.TTL != 0:
		return fmt.Errorf("%s is %v, and there is no %s; without one, leases do not run out: set it, or leave %s out", name("TTL"), cfg.TTL, name("Quorum"), name("TTL"))
	case cfg.Quorum == 0:
		return nil
	case cfg.Quorum > maxVoters/2:
		return fmt.Errorf("%s is %d; at most %d is allowed", name("Quorum"), cfg.Quorum, maxVoters/2)
	case r.voters > maxVoters:
		return fmt.Errorf("%s is %d; at most %d voters are allowed", name("Expect"), r.voters, maxVoters)
	case cfg.Quorum > r.voters:
		return fmt.Errorf("%s %d is more than %s, the %d voters that there are", name("Quorum"), cfg.Quorum, name("Expect"), r.voters)
	case 2*cfg.Quorum <= r.voters:
		return fmt.Errorf("%s %d is not above half of %d voters (%s): two sides of %d could each run the child; at least %d is needed",
			name("Quorum"), cfg.Quorum, r.voters, name("Expect"), cfg.Quorum, r.voters/2+1)
	case r.ttl < minTTL || r.ttl > maxTTL:
		return fmt.Errorf("%s is %v; %v to %v is allowed", name("TTL"), r.ttl, minTTL, maxTTL)
	}
	return nil
}

// splitIPPort parses what can be listened on.
func splitIPPort(addr string) (net.IP, int, error) {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, 0, errors.New("IP:PORT is allowed")
	}
	ip := net.ParseIP(host)
	if ip == nil {
		return nil, 0, fmt.Errorf("%q is not an IP address; IP:PORT is allowed", host)
	}
	port, err := parsePort(portText)
	return ip, port, err
}

func parsePort(text string) (int, error) {
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("port %q: 0 to 65535 is allowed", text)
	}
	return int(port), nil
}

// withDefaultPort returns addr with DefaultPort if it has none.
func withDefaultPort(addr string) (string, error) {
	if addr == "" {
		return "", errors.New("it is empty")
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		if strings.Contains(addr, ":") && net.ParseIP(addr) == nil {
			return "", errors.New("it is not an address")
		}
		return net.JoinHostPort(addr, strconv.Itoa(DefaultPort)), nil
	}
	if host == "" {
		return "", errors.New("the host is missing")
	}
	if n, err := parsePort(port); err != nil {
		return "", err
	} else if n == 0 {
		return "", errors.New("port 0 cannot be joined")
	}
	return addr, nil
}

// waitFor returns how many voters Join waits for; zero: any other, for a while.
func (cfg Config) waitFor() int {
	switch {
	case cfg.Quorum == 0:
		return cfg.Expect
	case cfg.Observer:
		return 0 // it may look at a cluster that has no quorum
	}
	return cfg.Quorum
}

// claims returns the configuration of the machine.
func (cfg Config) claims(incarnation uint64) claims.Config {
	r := cfg.meta().rules
	return claims.Config{Self: claims.Node(incarnation), Name: cfg.Name, Observer: cfg.Observer, Quorum: r.quorum, Voters: r.voters, TTL: r.ttl, SilentAfter: int(cfg.patience / tickEvery)}
}
