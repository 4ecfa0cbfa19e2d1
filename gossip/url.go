package gossip

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// urlParams are the parameters of a cluster URL, in the order of the
// documentation.
var urlParams = []struct {
	name string
	set  func(cfg *Config, value string) error
}{
	{"join", func(cfg *Config, value string) error {
		cfg.Join = strings.Split(value, ",")
		return nil
	}},
	{"name", func(cfg *Config, value string) error {
		cfg.Name = value
		return nil
	}},
	{"label", func(cfg *Config, value string) error {
		cfg.Label = value
		return nil
	}},
	{"key-file", func(cfg *Config, value string) error {
		cfg.KeyFile = value
		return nil
	}},
	{"expect", func(cfg *Config, value string) error {
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil {
			return fmt.Errorf("expect=%s: a number of nodes, 0 to 65535, is allowed", value)
		}
		cfg.Expect = int(n)
		return nil
	}},
	{"quorum", func(cfg *Config, value string) error {
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("quorum=%s: a number of voters, 1 or more, is allowed; without quorum, the cluster is in available mode", value)
		}
		cfg.Quorum = int(n)
		return nil
	}},
	{"ttl", func(cfg *Config, value string) (err error) {
		cfg.TTL, err = time.ParseDuration(value)
		if err != nil || cfg.TTL == 0 {
			return fmt.Errorf("ttl=%s: a time from %v to %v, such as 12s, is allowed", value, minTTL, maxTTL)
		}
		return nil
	}},
	{"advertise", func(cfg *Config, value string) error {
		cfg.Advertise = value
		return nil
	}},
	{"observer", func(cfg *Config, value string) error { return setBool(&cfg.Observer, "observer", value) }},
	{"insecure", func(cfg *Config, value string) error { return setBool(&cfg.Insecure, "insecure", value) }},
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
	u, err := url.Parse(raw)
	if err != nil {
		var detail *url.Error
		if errors.As(err, &detail) {
			err = detail.Err // without the URL, which may have a password in it
		}
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
	case u.Fragment != "" || strings.HasSuffix(raw, "#"):
		return cfg, errors.New("'#' is not allowed (in a value it is written %23)")
	case u.Host != "" && u.Hostname() == "":
		return cfg, fmt.Errorf("address %q: the IP is missing; IP:PORT is allowed, such as 0.0.0.0:%d", u.Host, DefaultPort)
	case u.Host != "" && u.Port() == "":
		cfg.Bind = net.JoinHostPort(u.Hostname(), strconv.Itoa(DefaultPort))
	default:
		cfg.Bind = u.Host
	}
	return cfg, cfg.setParams(u.RawQuery)
}

func (cfg *Config) setParams(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return fmt.Errorf("parameters: %w", err)
	}
	var names []string
	for _, param := range urlParams {
		names = append(names, param.name)
	}
	for name := range values {
		if !slices.Contains(names, name) {
			return fmt.Errorf("unknown parameter %q; allowed are %s", name, strings.Join(names, ", "))
		}
	}
	for _, param := range urlParams {
		switch given := values[param.name]; {
		case len(given) > 1:
			return fmt.Errorf("parameter %q is given %d times; once is allowed", param.name, len(given))
		case len(given) == 1 && given[0] == "":
			return fmt.Errorf("parameter %q has no value; leave it out or give one", param.name)
		case len(given) == 1:
			if err := param.set(cfg, given[0]); err != nil {
				return err
			}
		}
	}
	return nil
}

func setBool(to *bool, name, value string) error {
	if value != "true" && value != "false" {
		return fmt.Errorf("%s=%s: true and false are allowed", name, value)
	}
	*to = value == "true"
	return nil
}
