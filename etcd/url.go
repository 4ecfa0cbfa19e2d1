package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"highlander/internal/clusterurl"
)

const defaultPort = "2379"

// Settings of the client that Open makes. A member that hangs is noticed by
// DialKeepAlive for what streams; requests have limits of their own.
const (
	dialTimeout      = 2 * time.Second
	keepAliveTime    = 10 * time.Second // gRPC does not allow less
	keepAliveTimeout = 3 * time.Second
)

// address is what a cluster URL says.
type address struct {
	endpoints          []string
	ca, cert, key      string // files
	user, passwordFile string
	secure             bool
	name, prefix, path string
	ttl                time.Duration
}

// params are the parameters of a cluster URL, in the order of the documentation.
func (a *address) params() []clusterurl.Param {
	return []clusterurl.Param{
		clusterurl.String("name", &a.name),
		clusterurl.Duration("ttl", &a.ttl, fmt.Sprintf("whole seconds from %v to %v, such as 12s, are allowed", minTTL, maxTTL)),
		clusterurl.String("prefix", &a.prefix),
		clusterurl.String("ca-file", &a.ca),
		clusterurl.String("cert-file", &a.cert),
		clusterurl.String("key-file", &a.key),
		clusterurl.String("user", &a.user),
		clusterurl.String("password-file", &a.passwordFile),
	}
}

// Open returns the cluster of a URL, with a client of its own:
//
//	etcd://HOST:PORT,HOST:PORT/PREFIX?ttl=12s&name=N&ca-file=F&cert-file=F&key-file=F&user=U&password-file=F
//
// All parts but the first host may be left out; a port that is left out is 2379.
// With a ca-file or a cert-file, or as etcds://, the connection is encrypted: the
// server is verified by the ca-file, or by what the system trusts. An option
// overrides what the URL says. An error is a bad URL, option or file: nothing is
// connected to before the first Acquire.
func Open(url string, opts ...Option) (*Cluster, error) {
	a, err := parseURL(url)
	if err != nil {
		return nil, fmt.Errorf("etcd: cluster URL: %w", err)
	}
	cfg, err := newConfig(append(a.options(), opts...))
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	if _, err := a.clientConfig(); err != nil { // the files are read again when they are needed
		return nil, fmt.Errorf("etcd: cluster URL: %w", err)
	}
	return newCluster(cfg, newConnection(nil, a.dial)), nil
}

func (a address) dial(ctx context.Context) (*clientv3.Client, error) {
	cfg, err := a.clientConfig()
	if err != nil {
		return nil, err
	}
	return dial(ctx, cfg)
}

func parseURL(raw string) (a address, err error) {
	hosts, rest := cutHosts(raw)
	u, err := clusterurl.Parse(rest)
	if err != nil {
		return a, err
	}
	switch {
	case u.Scheme != "etcd" && u.Scheme != "etcds":
		return a, fmt.Errorf("scheme %q; etcd://HOST:PORT is allowed", u.Scheme)
	case strings.Contains(hosts, "@"), strings.Contains(u.Path, "@"): // the latter: after a '/' in a password
		return a, errors.New("a user is not allowed before the host; write user=USER&password-file=FILE")
	}
	if a.endpoints, err = parseHosts(hosts); err != nil {
		return a, err
	}
	a.path = strings.TrimRight(u.Path, "/")
	if err := clusterurl.SetParams(u.RawQuery, a.params()); err != nil {
		return a, err
	}
	if a.prefix != "" && a.path != "" {
		return a, fmt.Errorf("the prefix is given twice, as the path %q and as prefix=%s", a.path, a.prefix)
	}
	a.secure = u.Scheme == "etcds" || a.ca != "" || a.cert != ""
	return a, a.check()
}

// cutHosts returns the hosts of a URL, and the URL without them: package url knows
// of one host only.
func cutHosts(raw string) (hosts, rest string) {
	scheme, after, ok := strings.Cut(raw, "://")
	if !ok {
		return "", raw
	}
	end := strings.IndexAny(after, "/?#")
	if end < 0 {
		end = len(after)
	}
	return after[:end], scheme + "://" + after[end:]
}

func parseHosts(hosts string) (endpoints []string, err error) {
	for _, host := range strings.Split(hosts, ",") {
		h, port, err := net.SplitHostPort(host)
		if err != nil {
			h, port = strings.Trim(host, "[]"), defaultPort
			if strings.Contains(h, ":") && !strings.HasPrefix(host, "[") {
				return nil, fmt.Errorf("host %q: HOST:PORT is allowed, an IPv6 address in brackets", host)
			}
		}
		switch {
		case h == "":
			return nil, fmt.Errorf("host %q: the name is missing; HOST:PORT,HOST:PORT is allowed", host)
		case strings.ContainsFunc(h, unicode.IsSpace):
			return nil, fmt.Errorf("host %q: spaces are not allowed; HOST:PORT,HOST:PORT is", host)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, fmt.Errorf("host %q: a port from 1 to 65535 is allowed", host)
		}
		endpoints = append(endpoints, net.JoinHostPort(h, port))
	}
	return endpoints, nil
}

func (a address) check() error {
	switch {
	case (a.cert == "") != (a.key == ""):
		return errors.New("cert-file and key-file go together")
	case (a.user == "") != (a.passwordFile == ""):
		return errors.New("user and password-file go together")
	}
	return nil
}

// options are those that the URL has set.
func (a address) options() (opts []Option) {
	if a.name != "" {
		opts = append(opts, WithName(a.name))
	}
	if prefix := a.prefix + a.path; prefix != "" {
		opts = append(opts, WithPrefix(prefix))
	}
	if a.ttl != 0 {
		opts = append(opts, WithTTL(a.ttl))
	}
	return opts
}

// clientConfig reads the files that the URL names.
func (a address) clientConfig() (clientv3.Config, error) {
	cfg := clientv3.Config{
		DialTimeout:          dialTimeout,
		DialKeepAliveTime:    keepAliveTime,
		DialKeepAliveTimeout: keepAliveTimeout,
		PermitWithoutStream:  true,
		Logger:               zap.NewNop(), // what matters of it is logged here
		DialOptions:          []grpc.DialOption{grpc.WithChainUnaryInterceptor(noteReason)},
	}
	scheme := "http://"
	if a.secure {
		scheme = "https://"
		var err error
		if cfg.TLS, err = a.tlsConfig(); err != nil {
			return cfg, err
		}
	}
	for _, endpoint := range a.endpoints {
		cfg.Endpoints = append(cfg.Endpoints, scheme+endpoint)
	}
	if a.user != "" {
		raw, err := os.ReadFile(a.passwordFile)
		if err != nil {
			return cfg, fmt.Errorf("password-file: %w", err)
		}
		cfg.Username, cfg.Password = a.user, strings.TrimRight(string(raw), "\r\n")
		if cfg.Password == "" {
			return cfg, fmt.Errorf("password-file: %s is empty", a.passwordFile)
		}
	}
	return cfg, nil
}

func (a address) tlsConfig() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if a.ca != "" {
		pem, err := os.ReadFile(a.ca)
		if err != nil {
			return nil, fmt.Errorf("ca-file: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca-file: there is no certificate in %s", a.ca)
		}
	}
	if a.cert != "" {
		pair, err := tls.LoadX509KeyPair(a.cert, a.key)
		if err != nil {
			return nil, fmt.Errorf("cert-file, key-file: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}
