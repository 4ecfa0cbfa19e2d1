package main

import (
	"context"
	"log/slog"

	"highlander"
	"highlander/cmd/highlander/internal/guard"
	"highlander/kubernetes"
)

// kubernetesEngine is a namespace of a Kubernetes cluster.
type kubernetesEngine struct {
	server
	opts []kubernetes.Option // beyond the URL
}

func newKubernetesEngine(url string) (engine, error) {
	c, err := kubernetes.Open(url)
	if err != nil {
		return nil, withoutPrefix(err)
	}
	return kubernetesEngine{server: server{url, c}}, nil
}

func (e kubernetesEngine) dial(log *slog.Logger) (*kubernetes.Cluster, error) {
	return kubernetes.Open(e.url, append([]kubernetes.Option{kubernetes.WithLogger(log)}, e.opts...)...)
}

func (e kubernetesEngine) open(_ context.Context, _ *guard.Guard, log *slog.Logger) (highlander.Cluster, error) {
	c, err := e.dial(log)
	if err != nil {
		return nil, withoutPrefix(err)
	}
	return c, nil
}

// beside returns a node in the same namespace: ids are all that keeps clusters
// apart there.
func (e kubernetesEngine) beside(name, _ string) engine {
	e.opts = append(e.opts, kubernetes.WithName(name))
	return e
}

// observe sees holders only: who waits is not written anywhere.
func (e kubernetesEngine) observe(context.Context) (*observer, error) {
	c, err := e.dial(quietLog)
	if err != nil {
		return nil, withoutPrefix(err)
	}
	return e.observer(c, nil), nil
}

// measured has the nodes compete for ids of their own. There are fewer of them, as
// each is an object that is renewed by itself.
func (e kubernetesEngine) measured() (benchPlan, error) {
	plan := serverPlan(e.url)
	plan.kind, plan.slowKill, plan.idleIDs = benchKubernetes, true, 100
	plan.cleanUp = func(ctx context.Context) error {
		c, err := e.dial(quietLog)
		if err != nil {
			return withoutPrefix(err)
		}
		defer c.Close()
		return c.DeleteAll(ctx, plan.id)
	}
	return plan, nil
}
