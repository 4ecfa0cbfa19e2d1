package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	coordination "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

const leaderElection = "client-go leaderelection"

// leaderElector uses client-go's package with the durations that it recommends,
// those of the control plane, and has the lease released at the end.
type leaderElector struct {
	config leaderelection.LeaderElectionConfig
	cancel context.CancelFunc
	ended  chan struct{} // Run has returned: the lease is released or lost
}

func openLeaderElection(of candidacy) (elector, error) {
	klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // it tells of every step
	config, namespace, err := kubernetesConfig(of.URL)
	if err != nil {
		return nil, err
	}
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("leader election: %w", err)
	}
	return &leaderElector{config: leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Name: of.ID, Namespace: namespace},
			Client:     clients.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: rand.Text()},
		},
		ReleaseOnCancel: true,
		LeaseDuration:   15 * time.Second,
		RenewDeadline:   10 * time.Second,
		RetryPeriod:     2 * time.Second,
	}}, nil
}

// kubernetesConfig is what the URL says, for any client, and the namespace.
func kubernetesConfig(url string) (*rest.Config, string, error) {
	to, err := parseTarget(url)
	if err != nil {
		return nil, "", err
	}
	file, context := to.params.Get("kubeconfig"), to.params.Get("context")
	if file == "" && context == "" {
		if config, err := rest.InClusterConfig(); err == nil {
			return config, to.hosts, nil
		}
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = file
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: context}).ClientConfig()
	if err != nil {
		return nil, "", fmt.Errorf("kubernetes: %w", err)
	}
	return config, to.hosts, nil
}

// Campaign starts anew each time: Run is for one term.
func (l *leaderElector) Campaign(ctx context.Context) error {
	elected := make(chan struct{})
	config := l.config
	config.Callbacks = leaderelection.LeaderCallbacks{
		OnStartedLeading: func(context.Context) { close(elected) },
		OnStoppedLeading: func() {},
	}
	elector, err := leaderelection.NewLeaderElector(config)
	if err != nil {
		return fmt.Errorf("leader election: %w", err)
	}
	// Not under ctx: the lease may be released only when the child has returned.
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	l.cancel, l.ended = cancel, ended
	go func() {
		defer close(ended)
		elector.Run(run)
	}()
	select {
	case <-elected:
		return nil
	case <-ctx.Done():
		cancel()
		<-ended
		return context.Cause(ctx)
	}
}

func (l *leaderElector) Resign(ctx context.Context) error {
	l.cancel()
	select {
	case <-l.ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l *leaderElector) Lost() <-chan struct{} { return l.ended }
func (l *leaderElector) Close() error          { return nil }

// deleteLease deletes the Lease object that contestants have competed for.
func deleteLease(of candidacy) error {
	leases, err := leasesOf(of)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), stepTimeout)
	defer cancel()
	if err := leases.Delete(ctx, of.ID, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete the lease %s: %w", of.ID, err)
	}
	return nil
}

func leasesOf(of candidacy) (coordination.LeaseInterface, error) {
	config, namespace, err := kubernetesConfig(of.URL)
	if err != nil {
		return nil, err
	}
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return clients.CoordinationV1().Leases(namespace), nil
}
