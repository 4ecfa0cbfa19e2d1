package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"
)

const (
	election    = "concurrency.Election"
	electionTTL = 5 * time.Second // for want of a default that would be used: that is 60 s
)

// campaigner uses a Session and an Election, as etcdctl elect does.
type campaigner struct {
	client   *clientv3.Client
	prefix   string
	ttl      int // seconds
	session  *concurrency.Session
	election *concurrency.Election
}

func openElection(of candidacy) (elector, error) {
	config, err := etcdConfig(of.URL)
	if err != nil {
		return nil, err
	}
	client, err := clientv3.New(config)
	if err != nil {
		return nil, fmt.Errorf("election: %w", err)
	}
	return &campaigner{client: client, prefix: "/" + of.ID, ttl: int(of.TTL / time.Second)}, nil
}

// etcdConfig is what the URL says, for any client.
func etcdConfig(url string) (clientv3.Config, error) {
	to, err := parseTarget(url)
	if err != nil {
		return clientv3.Config{}, err
	}
	config := clientv3.Config{DialTimeout: 5 * time.Second, Logger: zap.NewNop(), Username: to.params.Get("user")}
	if file := to.params.Get("password-file"); file != "" {
		password, err := os.ReadFile(file)
		if err != nil {
			return clientv3.Config{}, fmt.Errorf("password-file: %w", err)
		}
		config.Password = strings.TrimRight(string(password), "\r\n")
	}
	scheme := "http://"
	files := transport.TLSInfo{TrustedCAFile: to.params.Get("ca-file"), CertFile: to.params.Get("cert-file"), KeyFile: to.params.Get("key-file")}
	if strings.HasPrefix(url, "etcds:") || files.TrustedCAFile != "" || !files.Empty() {
		scheme = "https://"
		if config.TLS, err = files.ClientConfig(); err != nil {
			return clientv3.Config{}, err
		}
		config.TLS.MinVersion = tls.VersionTLS12
	}
	for host := range strings.SplitSeq(to.hosts, ",") {
		config.Endpoints = append(config.Endpoints, scheme+host)
	}
	return config, nil
}

func (c *campaigner) Campaign(ctx context.Context) (err error) {
	if c.session, err = concurrency.NewSession(c.client, concurrency.WithTTL(c.ttl)); err != nil {
		return fmt.Errorf("new session: %w", err)
	}
	c.election = concurrency.NewElection(c.session, c.prefix)
	if err := c.election.Campaign(ctx, c.prefix); err != nil {
		_ = c.session.Close() // the error of Campaign is the one to tell
		return fmt.Errorf("campaign: %w", err)
	}
	return nil
}

func (c *campaigner) Resign(ctx context.Context) error {
	if err := c.election.Resign(ctx); err != nil {
		return fmt.Errorf("resign: %w", err)
	}
	return c.session.Close()
}

func (c *campaigner) Lost() <-chan struct{} { return c.session.Done() }
func (c *campaigner) Close() error          { return c.client.Close() }
