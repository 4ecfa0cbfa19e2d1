// Package kubernetestest starts Kubernetes API servers for tests and does to them
// what servers suffer: restarts, freezes. What it starts is a real kube-apiserver
// with RBAC, on an etcd in the same process and a port of the loopback interface;
// there are no controllers, no scheduler and no nodes. It has to be built once,
// by BuildCommand.
package kubernetestest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

// Server is a Kubernetes API server. Its own methods may be called by one
// goroutine at a time.
type Server struct {
	API
	binary string
	dir    string // holds everything of this server

	starter *starter
	process *process // nil while it is stopped
}

// patience is how long a server may take to start or to stop.
const patience = 2 * time.Minute

// Start starts a server and returns when it is ready, which takes some seconds.
// What is written survives a crash of the server, but not one of the machine.
// Close it when it is not needed any more; on Linux it also ends with the process
// that started it.
func Start() (*Server, error) {
	binary, err := find()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "highlander-kubernetes-*")
	if err != nil {
		return nil, fmt.Errorf("kubernetestest: %w", err)
	}
	s := &Server{API: API{token: rand.Text()}, binary: binary, dir: dir, starter: newStarter()}
	if err := s.create(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// create fills the directory and starts the server.
func (s *Server) create() error {
	if err := s.writeKeys(); err != nil {
		return fmt.Errorf("kubernetestest: %w", err)
	}
	// Another process may take the port before the server does.
	var err error
	for range 3 {
		if s.port, err = freePort(); err != nil {
			return fmt.Errorf("kubernetestest: %w", err)
		}
		if err = s.StartAgain(); err == nil {
			return WriteKubeconfig(s.Kubeconfig(), s.AdminConfig(), "default")
		}
	}
	return err
}

func (s *Server) file(name string) string { return filepath.Join(s.dir, name) }

// writeKeys makes what the server proves itself with, and the administrator, who
// is in the group that may do everything.
func (s *Server) writeKeys() error {
	certificate, key, err := cert.GenerateSelfSignedCertKey("localhost", []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	if err != nil {
		return err
	}
	s.ca = certificate
	accounts, err := keyutil.MakeEllipticPrivateKeyPEM()
	if err != nil {
		return err
	}
	tokens := s.token + ",admin,admin,system:masters\n"
	for name, content := range map[string][]byte{
		"tls.crt": certificate, "tls.key": key, "accounts.key": accounts, "tokens.csv": []byte(tokens),
	} {
		if err := os.WriteFile(s.file(name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// StartAgain starts a server that was stopped, with its data and on its port.
func (s *Server) StartAgain() error {
	if s.process != nil {
		return errors.New("kubernetestest: the server runs already")
	}
	p, err := s.starter.start(s.file("log"), s.binary, s.file("etcd"),
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--secure-port="+strconv.Itoa(s.port),
		"--tls-cert-file="+s.file("tls.crt"), "--tls-private-key-file="+s.file("tls.key"),
		"--token-auth-file="+s.file("tokens.csv"), "--authorization-mode=RBAC",
		"--service-account-issuer=https://highlander.test",
		"--service-account-key-file="+s.file("accounts.key"), "--service-account-signing-key-file="+s.file("accounts.key"),
		"--service-cluster-ip-range=10.0.0.0/24", "--endpoint-reconciler-type=none",
	)
	if err != nil {
		return fmt.Errorf("kubernetestest: start the server: %w", err)
	}
	if err := s.awaitReady(p); err != nil {
		_ = p.kill() // it may have ended by itself
		<-p.ended
		return fmt.Errorf("kubernetestest: %w; its log ends:\n%s", err, s.LogTail(4000))
	}
	s.process = p
	return nil
}

func (s *Server) awaitReady(p *process) error {
	client, err := rest.HTTPClientFor(s.AdminConfig())
	if err != nil {
		return err
	}
	defer utilnet.CloseIdleConnectionsFor(client.Transport)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if isReady(client, s.Host()) {
			return nil
		}
		select {
		case <-p.ended:
			return errors.New("the server has ended at once")
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("the server is not ready after %v", patience)
}

func isReady(client *http.Client, host string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, host+"/readyz", nil)
	if err != nil {
		return false
	}
	answer, err := client.Do(request)
	if err != nil {
		return false
	}
	_ = answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

// Stop ends the server at once, as a crash does.
func (s *Server) Stop() error {
	if s.process == nil {
		return nil
	}
	if err := s.process.kill(); err != nil {
		return fmt.Errorf("kubernetestest: stop the server: %w", err)
	}
	select {
	case <-s.process.ended:
	case <-time.After(patience):
		return fmt.Errorf("kubernetestest: the server has not stopped after %v", patience)
	}
	s.process = nil
	return nil
}

// Restart stops the server and starts it again.
func (s *Server) Restart() error { return errors.Join(s.Stop(), s.StartAgain()) }

// Freeze stops the server without closing its connections, until Thaw.
func (s *Server) Freeze() error {
	if s.process == nil {
		return nil
	}
	if err := s.process.freeze(); err != nil {
		return fmt.Errorf("kubernetestest: freeze the server: %w", err)
	}
	return nil
}

// Thaw lets a server that is frozen go on.
func (s *Server) Thaw() error {
	if s.process == nil {
		return nil
	}
	if err := s.process.thaw(); err != nil {
		return fmt.Errorf("kubernetestest: thaw the server: %w", err)
	}
	return nil
}

// Close ends the server, if it runs, and removes its directory. Nothing is to be
// done to the server after that.
func (s *Server) Close() error {
	defer s.starter.close()
	return errors.Join(s.Stop(), os.RemoveAll(s.dir))
}

// URL is a cluster URL, for the administrator and the namespace "default".
func (s *Server) URL() string { return ClusterURL("default", s.Kubeconfig()) }

// Kubeconfig is a file for the administrator, with the namespace "default".
func (s *Server) Kubeconfig() string { return s.file("kubeconfig") }

// ClusterURL is the cluster URL of a namespace.
func ClusterURL(namespace, kubeconfig string) string {
	u := url.URL{Scheme: "kubernetes", Host: namespace, RawQuery: url.Values{"kubeconfig": {kubeconfig}}.Encode()}
	return u.String()
}

// LogTail returns the last n bytes, at most, of what the server has logged.
func (s *Server) LogTail(n int) string {
	log, _ := os.ReadFile(s.file("log")) // empty if there is none
	return string(log[max(0, len(log)-n):])
}
