// Package etcdtest starts real etcd servers for tests, as net/http/httptest
// starts web servers. Nothing has to be installed: the members of the cluster
// are processes of the program that imports this package, which is executed
// again for each of them, so they can be killed and frozen as in production.
package etcdtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"highlander/internal/retry"
)

// Server is an etcd cluster on loopback, with its data in a directory of its
// own. Its methods may not be called concurrently.
type Server struct {
	dir     string
	members []*member
	secure  bool // TLS for clients
	auth    bool
}

// Option is a setting for Start.
type Option func(*Server)

// WithTLS makes the members demand TLS of clients; CAFile is what they trust.
func WithTLS() Option { return func(s *Server) { s.secure = true } }

const (
	startTimeout = 60 * time.Second // for a loaded machine
	opTimeout    = 20 * time.Second

	// RootPassword is the password of the user root after EnableAuth.
	RootPassword = "there-can-be-only-one"
)

// Start starts a cluster and returns when it has a leader. Close stops it.
func Start(members int, opts ...Option) (*Server, error) {
	if members < 1 || members > 9 {
		return nil, fmt.Errorf("etcdtest: %d members; 1 to 9 are allowed", members)
	}
	s := &Server{}
	for _, opt := range opts {
		opt(s)
	}
	var err error
	for range 5 { // somebody else may take a port before a member does
		if err = s.start(members); err == nil {
			return s, nil
		}
		s.Close()
	}
	return nil, fmt.Errorf("etcdtest: start: %w", err)
}

func (s *Server) start(members int) (err error) {
	if s.dir, err = os.MkdirTemp("", "etcdtest"); err != nil {
		return err
	}
	ports, err := freePorts(2 * members)
	if err != nil {
		return err
	}
	scheme := "http"
	if s.secure {
		scheme = "https"
	}
	var peers []string
	s.members = nil
	for i := range members {
		m := &member{memberConfig: memberConfig{
			Name:      fmt.Sprintf("m%d", i),
			Dir:       filepath.Join(s.dir, fmt.Sprintf("m%d", i)),
			ClientURL: fmt.Sprintf("%s://127.0.0.1:%d", scheme, ports[2*i]),
			PeerURL:   fmt.Sprintf("http://127.0.0.1:%d", ports[2*i+1]),
		}}
		peers = append(peers, m.Name+"="+m.PeerURL)
		s.members = append(s.members, m)
	}
	for _, m := range s.members {
		m.Cluster = strings.Join(peers, ",")
	}
	return s.Restart()
}

// Close kills the members and removes their data.
func (s *Server) Close() error {
	s.Stop()
	return os.RemoveAll(s.dir)
}

// Endpoints returns the addresses, host:port, at which the members listen for
// clients.
func (s *Server) Endpoints() []string {
	var endpoints []string
	for _, m := range s.members {
		_, addr, _ := strings.Cut(m.ClientURL, "://")
		endpoints = append(endpoints, addr)
	}
	return endpoints
}

// URL returns the cluster URL that package highlander/etcd opens.
func (s *Server) URL() string { return s.URLFor(s.Endpoints()...) }

// URLFor is URL for other endpoints: those of proxies in front of members.
func (s *Server) URLFor(endpoints ...string) string {
	at := strings.Join(endpoints, ",")
	if s.secure {
		return "etcd://" + at + "?ca-file=" + s.CAFile()
	}
	return "etcd://" + at
}

// CAFile returns the file with the certificates of all members, with WithTLS.
func (s *Server) CAFile() string { return filepath.Join(s.dir, "ca.pem") }

// Client returns a client for all members, as root when authentication is on.
// The caller closes it.
func (s *Server) Client() (*clientv3.Client, error) {
	cfg := clientv3.Config{DialTimeout: opTimeout, Logger: zap.NewNop()}
	for _, m := range s.members {
		cfg.Endpoints = append(cfg.Endpoints, m.ClientURL)
	}
	if s.auth {
		cfg.Username, cfg.Password = "root", RootPassword
	}
	if s.secure {
		tls, err := s.tlsConfig()
		if err != nil {
			return nil, err
		}
		cfg.TLS = tls
	}
	return clientv3.New(cfg)
}

// Stop kills all members, as a power failure would: what they have acknowledged
// is on disk.
func (s *Server) Stop() {
	for _, m := range s.members {
		m.kill()
	}
}

// Restart kills all members that run, starts all with the data they have, and
// returns when there is a leader.
func (s *Server) Restart() error {
	s.Stop()
	for _, m := range s.members {
		if err := m.start(); err != nil {
			return err
		}
	}
	for _, m := range s.members {
		if err := m.awaitReady(startTimeout); err != nil {
			return err
		}
	}
	if s.secure {
		return s.collectCertificates()
	}
	return nil
}

// StopMember kills a member. The first is number 0.
func (s *Server) StopMember(i int) { s.members[i].kill() }

// StartMember starts a member that was stopped, and returns when it has found
// the leader.
func (s *Server) StartMember(i int) error {
	if err := s.members[i].start(); err != nil {
		return err
	}
	return s.members[i].awaitReady(startTimeout)
}

// Freeze stops all members with SIGSTOP: connections stay open, and nothing is
// answered. Thaw lets them go on.
func (s *Server) Freeze() error { return s.each((*member).freeze) }

// Thaw ends Freeze and FreezeMember.
func (s *Server) Thaw() error { return s.each((*member).thaw) }

// FreezeMember is Freeze for one member.
func (s *Server) FreezeMember(i int) error { return s.members[i].freeze() }

// ThawMember is Thaw for one member.
func (s *Server) ThawMember(i int) error { return s.members[i].thaw() }

func (s *Server) each(do func(*member) error) error {
	var errs []error
	for _, m := range s.members {
		errs = append(errs, do(m))
	}
	return errors.Join(errs...)
}

// Leader returns the number of the member that leads. It waits for the end of an
// election, which a busy machine may have at any time.
func (s *Server) Leader() (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
	defer cancel()
	client, err := s.Client()
	if err != nil {
		return 0, err
	}
	defer client.Close()
	for {
		for i, m := range s.members {
			if status, err := client.Status(ctx, m.ClientURL); err == nil && status.Leader != 0 && status.Leader == status.Header.MemberId {
				return i, nil
			}
		}
		if !retry.Sleep(ctx, 20*time.Millisecond) { // no member says when
			return 0, errors.New("etcdtest: no member leads")
		}
	}
}

// EnableAuth creates the user root, and one more for each pair of name and
// password, who may read and write what begins with prefix, and turns
// authentication on.
func (s *Server) EnableAuth(prefix string, users map[string]string) error {
	return s.admin(func(ctx context.Context, client *clientv3.Client) error {
		steps := []func() error{
			func() error { _, err := client.UserAdd(ctx, "root", RootPassword); return err },
			func() error { _, err := client.RoleAdd(ctx, "root"); return err },
			func() error { _, err := client.UserGrantRole(ctx, "root", "root"); return err },
			func() error { _, err := client.RoleAdd(ctx, "highlander"); return err },
			func() error {
				_, err := client.RoleGrantPermission(ctx, "highlander", prefix, clientv3.GetPrefixRangeEnd(prefix), clientv3.PermissionType(clientv3.PermReadWrite))
				return err
			},
		}
		for name, password := range users {
			steps = append(steps,
				func() error { _, err := client.UserAdd(ctx, name, password); return err },
				func() error { _, err := client.UserGrantRole(ctx, name, "highlander"); return err })
		}
		steps = append(steps, func() error { _, err := client.AuthEnable(ctx); return err })
		for _, step := range steps {
			if err := step(); err != nil {
				return err
			}
		}
		s.auth = true
		return nil
	})
}

// Deny takes all rights from a user that EnableAuth has made; Allow gives them
// back.
func (s *Server) Deny(user string) error {
	return s.admin(func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.UserRevokeRole(ctx, user, "highlander")
		return err
	})
}

// Allow ends Deny.
func (s *Server) Allow(user string) error {
	return s.admin(func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.UserGrantRole(ctx, user, "highlander")
		return err
	})
}

func (s *Server) admin(do func(context.Context, *clientv3.Client) error) error {
	client, err := s.Client()
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
	defer cancel()
	return do(ctx, client)
}

// freePorts returns ports of 127.0.0.1 that nobody listens on. They are below
// those that the system gives to outgoing connections, so that they are likely to
// be free when a member starts again.
func freePorts(n int) ([]int, error) {
	var ports []int
	taken := map[int]bool{}
	for range 100 * n {
		offset, err := rand.Int(rand.Reader, big.NewInt(20000))
		if err != nil {
			return nil, err
		}
		port := 10000 + int(offset.Int64())
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil || taken[port] {
			continue
		}
		l.Close()
		taken[port] = true
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, errors.New("no free ports on 127.0.0.1")
}
