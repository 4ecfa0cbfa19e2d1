package gossip

import (
	"bufio"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// maxKeyFile is the size of the largest key file, in bytes.
const maxKeyFile = 64 << 10

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
	{"key-file", func(cfg *Config, value string) (err error) {
		cfg.Keys, err = readKeyFile(value)
		return err
	}},
	{"expect", func(cfg *Config, value string) error {
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil {
			return fmt.Errorf("expect=%s: a number of nodes, 0 to 65535, is allowed", value)
		}
		cfg.Expect = int(n)
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
//	gossip://IP:PORT?join=A,B&name=N&label=L&key-file=F&expect=3&advertise=IP:PORT&observer=true&insecure=true
//
// All parts but the scheme may be left out; a port that is left out is
// DefaultPort. gossip:// alone is the cluster of the zero Config. The key file
// is read: one key per line, base64 or hex, the first one encrypts; blank lines
// and lines that start with '#' are skipped; others than the owner must not be
// able to read it. All other fields are checked as Join does.
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
	case "Keys":
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

// readKeyFile returns the keys in a file.
func readKeyFile(path string) ([][]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("key-file: %w", err)
	}
	defer f.Close()
	if err := checkPrivate(f); err != nil {
		return nil, fmt.Errorf("key-file %s: %w", path, err)
	}
	keys, err := parseKeys(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("key-file %s: %w", path, err)
	}
	return keys, nil
}

// checkPrivate refuses a file that others than its owner can get at, where the
// mode tells.
func checkPrivate(f *os.File) error {
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errors.New("it is not a regular file")
	case info.Size() > maxKeyFile:
		return fmt.Errorf("it has %d bytes; at most %d are allowed", info.Size(), maxKeyFile)
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("its mode is %04o, others can get at the keys; run: chmod 600 %s", info.Mode().Perm(), f.Name())
	}
	return nil
}

func parseKeys(r io.Reader) ([][]byte, error) {
	var keys [][]byte
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, err := parseKey(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		keys = append(keys, key)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no key in it; one per line is needed, 16, 24 or 32 bytes in base64 or hex")
	}
	return keys, nil
}

// parseKey takes what can be hex for hex: 32 digits could be base64 as well,
// but a random key in base64 never looks like that.
func parseKey(line string) ([]byte, error) {
	key, err := hex.DecodeString(line)
	if err != nil {
		key, err = base64.StdEncoding.DecodeString(line)
	}
	switch {
	case err != nil: // which would show a part of the key
		return nil, errors.New("it is neither base64 nor hex")
	case len(key) != 16 && len(key) != 24 && len(key) != 32:
		return nil, fmt.Errorf("the key has %d bytes; 16, 24 and 32 are allowed", len(key))
	}
	return key, nil
}
