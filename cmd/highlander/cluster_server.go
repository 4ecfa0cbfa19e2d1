package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"highlander"
)

// server is what the clusters on servers have in common: the server decides,
// leases run out, and to look is to ask.
type server struct {
	url    string
	checks interface{ CheckStopWithin(d time.Duration) error }
}

func (s server) leasesRunOut() bool { return true }

func (s server) checkStopWithin(d time.Duration) error { return s.checks.CheckStopWithin(d) }

func (s server) checkRun() error { return nil }

func (s server) checkWitness() error {
	return fmt.Errorf("a witness is a vote more where the nodes vote, with gossip:// and quorum=N; on %s:// the server decides, and there is nothing for it to do", schemeOf(s.url))
}

// observer looks at the server with a cluster that acquires nothing. Members is
// nil where the server does not know them.
func (s server) observer(c highlander.Cluster, members func(context.Context) ([]memberView, error)) *observer {
	return &observer{
		look: func(ctx context.Context) (view, error) {
			ctx, cancel := context.WithTimeout(ctx, statusWithin)
			defer cancel()
			begin := time.Now()
			v, err := s.view(ctx, c, members)
			switch {
			case errors.Is(err, context.DeadlineExceeded):
				return v, fmt.Errorf("%s: the server has not answered within %v: %w", withoutSecrets(s.url), time.Since(begin).Round(time.Second), oneLineOf(withoutPrefix(err)))
			case err != nil:
				return v, fmt.Errorf("%s: %w", withoutSecrets(s.url), oneLineOf(withoutPrefix(err)))
			}
			return v, nil
		},
		every: time.Second,
		close: c.Close,
	}
}

func (s server) view(ctx context.Context, c highlander.Cluster, members func(context.Context) ([]memberView, error)) (v view, err error) {
	v = newView(schemeOf(s.url))
	v.Server = withoutSecrets(s.url)
	if v.nodesUnknown = members == nil; !v.nodesUnknown {
		if v.Members, err = members(ctx); err != nil {
			return v, err
		}
	}
	return v, v.addHolders(ctx, c)
}

// serverRest is how long the nodes of bench rest when some have been started: those
// have to connect, and to see the holder alive, if they are to know when it is dead.
const serverRest = time.Second

// serverPlan is how bench measures a cluster on a server: with an id of its own.
func serverPlan(url string) benchPlan {
	id := "highlander-bench-" + strings.ToLower(rand.Text()[:12])
	return benchPlan{kind: benchServer, id: id, idleIDs: 1000, restAfterKill: serverRest, restAtStart: serverRest, cluster: withoutSecrets(url)}
}

// withoutPrefix returns the error of a package, whose name comes first in it,
// without that, and without words for what the source of the URL stands for.
func withoutPrefix(err error) error {
	text := err.Error()
	for _, prefix := range []string{"postgres: ", "etcd: ", "kubernetes: ", "cluster URL: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return &reworded{text, err}
}

// oneLineOf returns an error that a client may have laid out over several lines.
func oneLineOf(err error) error {
	return &reworded{strings.Join(strings.Fields(err.Error()), " "), err}
}

// reworded is an error in other words.
type reworded struct {
	text string
	err  error
}

func (e *reworded) Error() string { return e.text }
func (e *reworded) Unwrap() error { return e.err }

func schemeOf(url string) string {
	scheme, _, _ := strings.Cut(url, "://")
	return scheme
}

// withoutSecrets returns a URL that was parsed without its parameters and its
// password, for people.
func withoutSecrets(url string) string {
	scheme, rest, _ := strings.Cut(url, "://")
	rest, _, _ = strings.Cut(rest, "#")
	rest, _, _ = strings.Cut(rest, "?")
	authority, path, _ := strings.Cut(rest, "/")
	if i := strings.LastIndex(authority, "@"); i >= 0 {
		user, _, _ := strings.Cut(authority[:i], ":")
		authority = user + authority[i:]
	}
	if path != "" {
		path = "/" + path
	}
	return scheme + "://" + authority + path
}
