package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5"

	"highlander"
	"highlander/cmd/highlander/internal/guard"
	"highlander/postgres"
)

// postgresEngine is a schema of a database.
type postgresEngine struct {
	server
	opts []postgres.Option // beyond the URL
}

func newPostgresEngine(url string) (engine, error) {
	c, err := postgres.Open(url)
	if err != nil {
		return nil, withoutPrefix(err)
	}
	return postgresEngine{server: server{url, c}}, nil
}

func (e postgresEngine) dial(log *slog.Logger, opts ...postgres.Option) (*postgres.Cluster, error) {
	return postgres.Open(e.url, append(append(opts, postgres.WithLogger(log)), e.opts...)...)
}

// open has the guard keep the connections: at their end others may start.
func (e postgresEngine) open(_ context.Context, by *guard.Guard, log *slog.Logger) (highlander.Cluster, error) {
	var opts []postgres.Option
	switch {
	case by != nil && guard.Holds:
		opts = append(opts, postgres.WithKeeper(by.Hold))
	case by != nil: // the command may outlive the connections by a moment
		opts = append(opts, postgres.WithoutProof())
	}
	c, err := e.dial(log, opts...)
	if err != nil {
		return nil, withoutPrefix(err)
	}
	return c, nil
}

func (e postgresEngine) beside(name, space string) engine {
	e.opts = append(e.opts, postgres.WithName(name))
	if space != "" {
		e.opts = append(e.opts, postgres.WithSchema(space))
	}
	return e
}

func (e postgresEngine) observe(context.Context) (*observer, error) {
	c, err := e.dial(quietLog)
	if err != nil {
		return nil, withoutPrefix(err)
	}
	return e.observer(c, func(ctx context.Context) (views []memberView, _ error) {
		members, err := c.Members(ctx)
		for _, m := range members {
			views = append(views, memberView{Node: m.Name, Since: m.Since})
		}
		return views, err
	}), nil
}

// measured has the nodes use a schema of their own.
func (e postgresEngine) measured() (benchPlan, error) {
	plan := serverPlan(e.url)
	plan.space = strings.ReplaceAll(plan.id, "-", "_")
	plan.cleanUp = func(ctx context.Context) error { return e.dropSchema(ctx, plan.space) }
	return plan, nil
}

func (e postgresEngine) dropSchema(ctx context.Context, schema string) error {
	conn, err := e.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, "drop schema if exists "+pgx.Identifier{schema}.Sanitize()+" cascade")
	return err
}

// connect opens a connection of our own.
func (e postgresEngine) connect(ctx context.Context) (*pgx.Conn, error) {
	u, err := url.Parse(e.url)
	if err != nil {
		return nil, errors.New("the URL cannot be parsed") // it was, before
	}
	params := u.Query()
	for _, own := range []string{"name", "ttl", "schema"} {
		params.Del(own)
	}
	u.RawQuery = params.Encode()
	return pgx.Connect(ctx, u.String())
}

// schemaSQL makes the tables.
func (e postgresEngine) schemaSQL() string {
	name := postgres.DefaultSchema
	if u, err := url.Parse(e.url); err == nil {
		name = cmp.Or(u.Query().Get("schema"), name)
	}
	return postgres.Schema(name)
}
