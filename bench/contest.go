package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"
)

const (
	contestants = 3                // as many as highlander bench has nodes
	stepTimeout = 60 * time.Second // for anything a measurement waits for
)

// contest measures a peer: some contestants compete for one id. It is to be used
// by one goroutine.
type contest struct {
	of     candidacy
	procs  []*process
	events chan processEvent
	closed chan struct{} // ends the readers
	reads  sync.WaitGroup
	named  int
}

// process is a contestant's process and what is known of it.
type process struct {
	name    string
	cmd     *exec.Cmd
	orders  *json.Encoder
	input   io.Closer
	dead    bool
	ready   bool
	started time.Duration // zero: its child does not run
	stopped time.Duration // the last time
	waits   bool          // competes, and is not elected
}

// processEvent is an event of a process, which has ended if err is set.
type processEvent struct {
	from *process
	event
	err error
}

// openContest starts the contestants, and waits until one of them is elected.
func openContest(ctx context.Context, of candidacy) (*contest, error) {
	c := &contest{of: of, events: make(chan processEvent, 64), closed: make(chan struct{})}
	for range contestants {
		if err := c.add(ctx); err != nil {
			c.close()
			return nil, err
		}
	}
	return c, nil
}

// add starts one more contestant.
func (c *contest) add(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	c.named++
	p := &process{name: fmt.Sprintf("%s-%d", c.of.Peer, c.named)}
	if err := c.launch(p); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	if err := c.until(ctx, p.name+" to start", func() bool { return p.ready }); err != nil {
		return err
	}
	return c.compete(ctx, p)
}

func (c *contest) compete(ctx context.Context, p *process) error {
	if err := p.orders.Encode(orderCompete); err != nil {
		return fmt.Errorf("%s %s: %w", orderCompete, p.name, err)
	}
	return c.until(ctx, p.name+" to compete", func() bool { return p.waits || p.started != 0 })
}

func (c *contest) launch(p *process) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	p.cmd = exec.Command(exe, contestantMode)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = dieWithParent()
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.input, p.orders = in, json.NewEncoder(in)
	c.procs = append(c.procs, p)
	c.reads.Go(func() { c.read(p, out) })
	return p.orders.Encode(c.of)
}

func (c *contest) read(p *process, out io.Reader) {
	events := json.NewDecoder(out)
	for {
		e := processEvent{from: p}
		e.err = events.Decode(&e.event)
		select {
		case c.events <- e:
		case <-c.closed:
			return
		}
		if e.err != nil {
			return
		}
	}
}

// until takes events until cond holds. It fails when ctx ends, when a process does
// that was not killed, and when two children run.
func (c *contest) until(ctx context.Context, what string, cond func() bool) error {
	for !cond() {
		select {
		case e := <-c.events:
			if err := c.take(e); err != nil {
				return fmt.Errorf("waiting for %s: %w", what, err)
			}
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
		}
	}
	return nil
}

func (c *contest) take(e processEvent) error {
	p := e.from
	switch {
	case p.dead:
		return nil
	case e.err != nil:
		p.end()
		return fmt.Errorf("%s ended by itself", p.name)
	}
	switch e.Event {
	case evReady:
		p.ready = true
	case evCompeting:
		p.waits = true
	case evStarted:
		p.waits, p.started = false, e.At
		if other := slices.IndexFunc(c.procs, func(o *process) bool { return o != p && o.started != 0 && !o.dead }); other >= 0 {
			return fmt.Errorf("%s was elected while %s was", p.name, c.procs[other].name)
		}
	case evStopped:
		p.started, p.stopped = 0, e.At
	case evFailed:
		return fmt.Errorf("%s: %s", p.name, e.Message)
	}
	return nil
}

// elected returns the process whose child runs, or nil.
func (c *contest) elected() *process {
	i := slices.IndexFunc(c.procs, func(p *process) bool { return !p.dead && p.started != 0 })
	if i < 0 {
		return nil
	}
	return c.procs[i]
}

// round makes a measurement once a contestant is elected and the others have
// waited for a while, from rest to twice that: what looks or renews at intervals
// must not be met at the same point of them again and again.
func (c *contest) round(ctx context.Context, rest time.Duration, measure func(*contest, context.Context) (time.Duration, error)) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	if err := c.until(ctx, "an election", func() bool { return c.elected() != nil }); err != nil {
		return 0, err
	}
	if err := c.during(ctx, rest+rand.N(rest)); err != nil {
		return 0, err
	}
	return measure(c, ctx)
}

// during takes events for a time.
func (c *contest) during(ctx context.Context, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	err := c.until(ctx, "time to pass", func() bool { return false })
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// graceful is one round of: child returned -> running elsewhere.
func (c *contest) graceful(ctx context.Context) (time.Duration, error) {
	leader := c.elected()
	if err := leader.orders.Encode(orderStop); err != nil {
		return 0, fmt.Errorf("%s %s: %w", orderStop, leader.name, err)
	}
	err := c.until(ctx, "the next election", func() bool { return leader.started == 0 && c.elected() != nil })
	if err != nil {
		return 0, err
	}
	return c.elected().started - leader.stopped, c.compete(ctx, leader)
}

// killed is one round of: signal sent -> running elsewhere.
func (c *contest) killed(ctx context.Context) (time.Duration, error) {
	leader := c.elected()
	at := now()
	leader.end()
	if err := c.until(ctx, "the next election", func() bool { return c.elected() != nil }); err != nil {
		return 0, err
	}
	return c.elected().started - at, c.add(ctx)
}

// end kills the process, if it still runs, and waits for it.
func (p *process) end() {
	p.dead = true
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	_ = p.input.Close()
}

// close has those contestants resign that can, and ends all of them.
func (c *contest) close() {
	for _, p := range c.procs {
		_ = p.input.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, p := range c.procs {
		for !p.dead && ctx.Err() == nil {
			// An error is a process that has ended, or the end of our patience.
			_ = c.until(ctx, p.name+" to end", func() bool { return p.dead })
		}
		p.end()
	}
	close(c.closed)
	c.reads.Wait()
}
