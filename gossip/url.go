package gossip

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"highlander/internal/clusterurl"
)

// params are the parameters of a cluster URL, in the order of the documentation.
func (cfg *Config) params() []clusterurl.Param {
	return []clusterurl.Param{
		{Name: "join", Set: func(value string) error {
			cfg.Join = strings.Split(value, ",")
			return nil
		}},
		clusterurl.String("name", &cfg.Name),
		clusterurl.String("label", &cfg.Label),
		clusterurl.String("key-file", &cfg.KeyFile),
		{Name: "expect", Set: func(value string) error {
			n, err := strconv.ParseUint(value, 10, 16)
			if err != nil {
				return fmt.Errorf("expect=%s: a number of nodes, 0 to 65535, is allowed", value)
			}
			cfg.Expect = int(n)
			return nil
		}},
		{Name: "quorum", Set: func(value string) error {
			n, err := strconv.ParseUint(value, 10, 16)
			if err != nil || n == 0 {
				return fmt.Errorf("quorum=%s: a number of voters, 1 or more, is allowed; without quorum, the cluster is in available mode", value)
			}
			cfg.Quorum = int(n)
			return nil
		}},
		clusterurl.Duration("ttl", &cfg.TTL, fmt.Sprintf("a time from %v to %v, such as 12s, is allowed", minTTL, maxTTL)),
		clusterurl.String("advertise", &cfg.Advertise),
		boolParam("observer", &cfg.Observer),
		boolParam("insecure", &cfg.Insecure),
	}
}

func boolParam(name string, to *bool) clusterurl.Param {
	return clusterurl.Param{Name: name, Set: func(value string) error {
		if value != "true" && value != "false" {
			return fmt.Errorf("%s=%s: true and false are allowed", name, value)
		}
		*to = value == "true"
		return nil
	}}
}

// ParseURL returns the Config that a cluster URL stands for:
//
//	gossip://IP:PORT?join=A,B&name=N&label=L&key-file=F&expect=3&quorum=2&ttl=12s&advertise=IP:PORT&observer=true&insecure=true
//
// All parts but the scheme may be left out; a port that is left out is
// DefaultPort. gossip:// alone is the cluster of the zero Config. All fields are
// checked as Join does, the key file included.
func ParseURL(raw string) (Config, error) {
	cfg, err := parseURL(raw)
	if err == nil {
		err = cfg.check(urlNames)
	}
	if err != nil {
		return Config{}, fmt.Errorf("gossip: cluster URL: %w", err)
	}
	return cfg, nil
}

// urlNames are the names that the fields have in a URL.
func urlNames(field string) string {
	switch field {
	case "Bind":
		return "address"
	case "Keys", "KeyFile":
		return "key-file"
	case "Insecure":
		return "insecure=true"
	}
	return strings.ToLower(field)
}

func parseURL(raw string) (Config, error) {
	var cfg Config
	u, err := clusterurl.Parse(raw)
	if err != nil {
		return cfg, err
	}
	switch {
	case u.Scheme != "gossip":
		return cfg, fmt.Errorf("scheme %q; gossip://IP:PORT is allowed", u.Scheme)
	case u.Opaque != "":
		return cfg, errors.New("the // after gossip: is missing; gossip://IP:PORT is allowed")
	case u.User != nil:
		return cfg, errors.New("a user is not allowed; keys are given as key-file=FILE")
	case u.Path != "" && u.Path != "/":
		return cfg, fmt.Errorf("path %q is not allowed; gossip://IP:PORT is", u.Path)
	case u.Host != "" && u.Hostname() == "":
		return cfg, fmt.Errorf("address %q: the IP is missing; IP:PORT is allowed, such as 0.0.0.0:%d", u.Host, DefaultPort)
	case u.Host != "" && u.Port() == "":
		cfg.Bind = net.JoinHostPort(u.Hostname(), strconv.Itoa(DefaultPort))
	default:
		cfg.Bind = u.Host
	}
	return cfg, clusterurl.SetParams(u.RawQuery, cfg.params())
}
