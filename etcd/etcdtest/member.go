package etcdtest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// memberEnv has the memberConfig, as JSON, in a process that is to be a member.
const memberEnv = "HIGHLANDER_ETCDTEST_MEMBER"

// Whoever imports this package is a member when executed as one.
func init() {
	raw := os.Getenv(memberEnv)
	if raw == "" {
		return
	}
	var cfg memberConfig
	err := json.Unmarshal([]byte(raw), &cfg)
	if err == nil {
		err = cfg.serve(os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stdout, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// memberConfig is what a member has to know.
type memberConfig struct {
	Name, Dir          string
	ClientURL, PeerURL string
	Cluster            string // NAME=PEERURL,...
}

const (
	ready      = "ready"
	bcryptCost = 4 // passwords are the tests'
)

// serve runs a member until stdin ends, which it does with the process that has
// started it. It says so on stdout when it has found the leader.
func (c memberConfig) serve(stdin io.Reader, stdout io.Writer) error {
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = c.Name, c.Dir
	cfg.InitialCluster = c.Cluster
	cfg.LogLevel = "error"
	cfg.LogOutputs = []string{c.Dir + ".log"}
	// A process that does not get to run for half a second, as on a busy machine,
	// should not cost an election.
	cfg.TickMs, cfg.ElectionMs = 100, 1000
	cfg.BcryptCost = bcryptCost
	client, err := url.Parse(c.ClientURL)
	if err != nil {
		return err
	}
	peer, err := url.Parse(c.PeerURL)
	if err != nil {
		return err
	}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	cfg.ClientAutoTLS = client.Scheme == "https"
	cfg.SelfSignedCertValidity = 1
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	go func() {
		io.Copy(io.Discard, stdin)
		os.Exit(0)
	}()
	select {
	case <-etcd.Server.ReadyNotify():
		fmt.Fprintln(stdout, ready)
	case err := <-etcd.Err():
		return err
	}
	return <-etcd.Err()
}

// member is a member of a Server, seen from outside.
type member struct {
	memberConfig
	cmd   *exec.Cmd
	stdin io.Closer
	said  <-chan string // its first line, once
}

// start starts the process.
func (m *member) start() error {
	if m.cmd != nil {
		return fmt.Errorf("etcdtest: member %s runs already", m.Name)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	raw, err := json.Marshal(m.memberConfig)
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), memberEnv+"="+string(raw))
	separate(cmd)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	said := make(chan string, 1)
	go func() {
		line, err := bufio.NewReader(stdout).ReadString('\n')
		if err != nil && line == "" {
			line = "it ended and said nothing"
		}
		said <- strings.TrimSpace(line)
	}()
	m.cmd, m.stdin, m.said = cmd, stdin, said
	return nil
}

// awaitReady waits until the member has found the leader.
func (m *member) awaitReady(patience time.Duration) error {
	select {
	case line := <-m.said:
		if line != ready {
			m.kill()
			return fmt.Errorf("etcdtest: member %s: %s", m.Name, line)
		}
		return nil
	case <-time.After(patience):
		m.kill()
		return fmt.Errorf("etcdtest: member %s found no leader within %v", m.Name, patience)
	}
}

// kill ends the process with SIGKILL, if it runs, and waits for it.
func (m *member) kill() {
	if m.cmd == nil {
		return
	}
	m.cmd.Process.Kill()
	m.stdin.Close()
	m.cmd.Wait() // it ends with the signal, which is no news
	m.cmd = nil
}

var errNotRunning = errors.New("etcdtest: the member does not run")
