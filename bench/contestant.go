package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// A contestant is a process of its own that competes for one id by the means of a
// peer. The bench starts it, steers it through its standard input and hears of it
// through its standard output, a JSON object a line.
const contestantMode = "__contestant"

// elector is a peer in one process, used as its documentation says. Its methods
// are called one after the other, but for Close, which may cut Campaign short.
type elector interface {
	Campaign(ctx context.Context) error // returns once this process is elected
	Resign(ctx context.Context) error   // the child has returned: let others be elected
	Lost() <-chan struct{}              // closed when the peer says that this process is elected no more
	Close() error
}

// candidacy is the first line that a contestant reads.
type candidacy struct {
	Peer string        `json:"peer"` // its name in peers
	URL  string        `json:"url"`  // as highlander takes it
	ID   string        `json:"id"`
	TTL  time.Duration `json:"ttl,omitempty"` // of the peer; its default if zero
}

// order is what a contestant is told to do.
type order string

const (
	orderCompete order = "compete"
	orderStop    order = "stop" // ends the child, and resigns when it has returned
)

// event is what a contestant tells.
type event struct {
	Event   string        `json:"event"`
	At      time.Duration `json:"at,omitempty"` // by now()
	Message string        `json:"message,omitempty"`
}

const (
	evReady     = "ready"
	evCompeting = "competing"
	evStarted   = "started"  // the child runs
	evStopped   = "stopped"  // the child returns
	evResigned  = "resigned" // and the peer has been told
	evFailed    = "failed"
)

// contestantMain becomes a contestant, and does not return, in a process started as one.
func contestantMain() {
	if len(os.Args) != 2 || os.Args[1] != contestantMode {
		return
	}
	// Ctrl-C reaches every process in the terminal, but it is for the parent to
	// end the contestants.
	signal.Ignore(os.Interrupt, syscall.SIGTERM)
	c := &contestant{out: json.NewEncoder(os.Stdout)}
	if err := c.run(bufio.NewReader(os.Stdin)); err != nil {
		c.fail(err)
		os.Exit(1)
	}
	os.Exit(0)
}

type contestant struct {
	elector elector
	stop    context.CancelFunc // ends the child
	term    sync.WaitGroup     // one at a time

	mu  sync.Mutex
	out *json.Encoder
}

// run obeys until its input ends.
func (c *contestant) run(in io.Reader) error {
	orders := json.NewDecoder(in)
	var of candidacy
	if err := orders.Decode(&of); err != nil {
		return fmt.Errorf("read the candidacy: %w", err)
	}
	var err error
	if c.elector, err = peers[of.Peer].open(of); err != nil {
		return err
	}
	defer c.elector.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer c.term.Wait()
	defer cancel()
	c.tell(event{Event: evReady})
	for {
		var o order
		if err := orders.Decode(&o); err != nil {
			return nil // the parent wants no more, or is gone
		}
		switch o {
		case orderCompete:
			c.term.Wait()
			var child context.Context
			child, c.stop = context.WithCancel(ctx)
			c.term.Go(func() { c.serve(child) })
		case orderStop:
			c.stop()
		}
	}
}

// serve is one candidacy: the child runs from the election until ctx ends.
func (c *contestant) serve(ctx context.Context) {
	c.tell(event{Event: evCompeting})
	if err := c.elector.Campaign(ctx); err != nil {
		if ctx.Err() == nil {
			c.fail(err)
		}
		return
	}
	c.tell(event{Event: evStarted, At: now()})
	select {
	case <-ctx.Done():
	case <-c.elector.Lost():
		c.fail(fmt.Errorf("elected no more"))
		return
	}
	c.tell(event{Event: evStopped, At: now()})
	resign, cancel := context.WithTimeout(context.Background(), stepTimeout)
	defer cancel()
	if err := c.elector.Resign(resign); err != nil {
		c.fail(err)
		return
	}
	c.tell(event{Event: evResigned})
}

func (c *contestant) fail(err error) { c.tell(event{Event: evFailed, Message: err.Error()}) }

// tell says something to the parent. If that is gone, so is the input.
func (c *contestant) tell(e event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.out.Encode(e)
}
