package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

const slowestShare = 10 // slow measurements are repeated this much less often, as in highlander bench

// bench makes comparisons.
type bench struct {
	rounds   int
	only     []string          // engine or engine/name; empty: all
	urls     map[string]string // engine -> an existing server
	progress *progress
}

// run makes the comparisons of one engine after those of another. Together with
// an error it returns what could be measured, if there is something.
func (b *bench) run(ctx context.Context) (_ *report, err error) {
	dir, err := os.MkdirTemp("", "highlander-bench-*")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b.progress.step("building highlander")
	highlander, err := buildCommand(ctx, dir)
	if err != nil {
		return nil, err
	}
	rep := &report{}
	before := load()
	var failed []error // an engine whose server is not there does not hide the others
	for _, engine := range engineNames() {
		chosen := b.chosen(engine)
		if len(chosen) == 0 {
			continue
		}
		if err := b.compareOn(ctx, engine, chosen, highlander, rep); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", engine, err))
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	rep.Load = before + " before, " + load() + " after"
	return rep, errors.Join(failed...)
}

func (b *bench) chosen(engine string) (chosen []comparison) {
	for _, c := range comparisons() {
		all := len(b.only) == 0 || slices.Contains(b.only, engine)
		if c.engine == engine && (all || slices.Contains(b.only, engine+"/"+c.name)) {
			chosen = append(chosen, c)
		}
	}
	return chosen
}

// compareOn makes comparisons on one server.
func (b *bench) compareOn(ctx context.Context, engine string, chosen []comparison, highlander command, rep *report) (err error) {
	url := b.urls[engine]
	if url == "" {
		b.progress.step("starting %s", engine)
		started, err := servers[engine]()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, started.close()) }()
		url = started.url
	}
	for _, c := range chosen {
		b.progress.step("measuring %s/%s: highlander", engine, c.name)
		ours := url
		for i := 0; i < len(c.params); i += 2 {
			ours = withParam(ours, c.params[i], c.params[i+1])
		}
		measured, err := highlander.measure(ctx, ours, c.name, b.rounds)
		if err != nil {
			return err
		}
		rep.Machine, rep.Version = measured.Machine, measured.Version
		r := row{Engine: engine, Name: c.name, Measure: c.what, Limit: c.limit, Ours: figures(measured.Results[0]), Peers: []peerFigures{}}
		for _, other := range c.rivals {
			theirs := peerFigures{Peer: other.peer, What: other.what}
			b.progress.step("measuring %s/%s: %s", engine, c.name, theirs.name())
			if theirs.figures, err = b.contest(ctx, url, c.slow, other); err != nil {
				return fmt.Errorf("%s: %w", theirs.name(), err)
			}
			r.Peers = append(r.Peers, theirs)
		}
		rep.Rows = append(rep.Rows, r)
	}
	return nil
}

// contest measures a peer.
func (b *bench) contest(ctx context.Context, url string, slow bool, other rival) (_ figures, err error) {
	rounds := b.rounds
	if slow {
		rounds = max(3, rounds/slowestShare)
	}
	kind := peers[other.peer]
	of := candidacy{Peer: other.peer, URL: url, ID: "highlander-bench-" + strings.ToLower(rand.Text()), TTL: other.ttl}
	c, err := openContest(ctx, of)
	if err != nil {
		return figures{}, err
	}
	defer func() {
		c.close()
		err = errors.Join(err, kind.clean(of))
	}()
	var all []time.Duration
	for i := range rounds {
		took, err := c.round(ctx, other.rest(kind), other.round)
		if err != nil {
			return figures{}, fmt.Errorf("round %d: %w", i+1, err)
		}
		all = append(all, took)
		b.progress.update("round %d of %d: %v", i+1, rounds, took)
	}
	return summarize(all), nil
}
