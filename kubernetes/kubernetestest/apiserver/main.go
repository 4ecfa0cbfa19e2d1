// Command apiserver is a Kubernetes API server for tests: the kube-apiserver of
// the k8s.io/kubernetes module with an etcd in the same process.
//
//	apiserver ETCD-DIR [FLAG OF KUBE-APISERVER]...
package main

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: apiserver ETCD-DIR [FLAG OF KUBE-APISERVER]...")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "apiserver:", err)
		os.Exit(1)
	}
}

func run(dir string, flags []string) error {
	etcd, address, err := startEtcd(dir)
	if err != nil {
		return fmt.Errorf("starting etcd: %w", err)
	}
	defer etcd.Close()
	command := app.NewAPIServerCommand()
	command.SetArgs(append([]string{"--etcd-servers=" + address}, flags...))
	return command.Execute()
}

// startEtcd starts an etcd of one member, reached by a unix socket in its
// directory. What it writes is safe from the end of the process, not of the
// machine.
func startEtcd(dir string) (*embed.Etcd, string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", err
	}
	c := embed.NewConfig()
	c.Dir = filepath.Join(dir, "data")
	c.LogLevel = "error"
	c.UnsafeNoFsync = true
	client := url.URL{Scheme: "unix", Path: filepath.Join(dir, "etcd.sock")}
	nobody := url.URL{Scheme: "http", Host: "127.0.0.1:0"} // it has to be told of peers, and to others
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{nobody}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{nobody}, []url.URL{nobody}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	etcd, err := embed.StartEtcd(c)
	if err != nil {
		return nil, "", err
	}
	select {
	case <-etcd.Server.ReadyNotify():
		return etcd, client.String(), nil
	case err := <-etcd.Err():
		return nil, "", err
	case <-time.After(time.Minute):
		return nil, "", fmt.Errorf("etcd in %s was not ready within a minute", dir)
	}
}
