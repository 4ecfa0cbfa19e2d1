package main

import (
	"context"
	"log/slog"

	"highlander"
	"highlander/cmd/highlander/internal/guard"
	"highlander/etcd"
)

// etcdEngine is what begins with a prefix in an etcd.
type etcdEngine struct {
	server
	opts []etcd.Option // beyond the URL
}

func newEtcdEngine(url string) (engine, error) {
	c, err := etcd.Open(url)
	if err != nil {
		return nil, withoutPrefix(err)
	}
	return etcdEngine{server: server{url, c}}, nil
}

func (e etcdEngine) dial(log *slog.Logger) (*etcd.Cluster, error) {
	return etcd.Open(e.url, append([]etcd.Option{etcd.WithLogger(log)}, e.opts...)...)
}

func (e etcdEngine) open(_ context.Context, _ *guard.Guard, log *slog.Logger) (highlander.Cluster, error) {
	c, err := e.dial(log)
	if err != nil {
		return nil, withoutPrefix(err)
	}
	return c, nil
}

func (e etcdEngine) beside(name, space string) engine {
	e.opts = append(e.opts, etcd.WithName(name))
	if space != "" {
		e.opts = append(e.opts, etcd.WithPrefix(space))
	}
	return e
}

func (e etcdEngine) observe(context.Context) (*observer, error) {
	c, err := e.dial(quietLog)
	if err != nil {
		return nil, withoutPrefix(err)
	}
	return e.observer(c, func(ctx context.Context) ([]memberView, error) {
		views := []memberView{}
		members, err := c.Members(ctx)
		for _, m := range members {
			views = append(views, memberView{Node: m.Name, Since: m.Since})
		}
		return views, err
	}), nil
}

// measured has the nodes use a prefix of their own, below the user's: there they
// have the right to.
func (e etcdEngine) measured() (benchPlan, error) {
	plan := serverPlan(e.url)
	plan.slowKill = true
	c, err := e.dial(quietLog)
	if err != nil {
		return plan, withoutPrefix(err)
	}
	defer c.Close()
	plan.space = c.Prefix() + "/" + plan.id
	plan.cleanUp = func(ctx context.Context) error {
		c, err := etcd.Open(e.url, etcd.WithPrefix(plan.space), etcd.WithLogger(quietLog))
		if err != nil {
			return err
		}
		defer c.Close()
		return c.DeleteAll(ctx)
	}
	return plan, nil
}
