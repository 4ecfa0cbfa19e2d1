package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"highlander"
	"highlander/cmd/highlander/internal/guard"
)

const (
	// A highlander that wakes learns within this time whether another node has
	// taken over. The promise that one child is left within 5 s holds for it, too.
	wokenKnows = 4 * time.Second

	holderEvery = 250 * time.Millisecond // how often a waiting node looks who holds the id

	// A supervisor that stops a service may send the signal to all its processes at
	// once. So long after the end of the command highlander's own may be heard.
	signalWithin = 100 * time.Millisecond
)

// job is the command as a child.
type job struct {
	log        *slog.Logger
	spec       highlander.ChildSpec
	path       string
	args       []string
	shutdown   time.Duration // from SIGTERM to SIGKILL
	hold       bool
	eventsFile string

	leasesRunOut bool // of the cluster it runs in

	guard   *guard.Guard
	running atomic.Bool // there is, or may be, a command
	exit    guard.Exit  // of the last run; for Serve, and for run after it
}

func (j *job) run(ctx context.Context, at endpoint) error {
	hadTerminal := hasTerminal() // before its end can be heard
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, append([]os.Signal{os.Interrupt, syscall.SIGTERM}, passedOn...)...)
	defer signal.Stop(signals)
	serving, stop := context.WithCancel(ctx) // ends at a signal
	defer stop()
	over, end := context.WithCancel(ctx) // ends with this function
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer end()
	opts := []highlander.Option{highlander.WithLogger(j.log)}
	if !j.hold {
		opts = append(opts, highlander.WithReleaseWhenDone())
	}
	if j.eventsFile != "" {
		f, err := os.OpenFile(j.eventsFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return fmt.Errorf("--events: %w", err)
		}
		defer f.Close()
		opts = append(opts, highlander.WithObserver(j.writeEvents(f)))
	}
	var err error
	if j.guard, err = guard.Start(serving, guard.Options{Logger: j.log}); err != nil {
		return err
	}
	defer j.guard.Close()
	helpers.Go(func() { j.passSignals(over, signals, hadTerminal, stop) })
	cluster, err := at.open(serving, j.guard, j.log)
	if err != nil {
		return j.verdict(err)
	}
	defer cluster.Close()
	j.certify(over, cluster, &helpers)
	s := highlander.Wrap(cluster, j.spec, opts...)
	helpers.Go(func() { j.tellHolder(over, cluster, s) })
	return j.verdict(s.Serve(serving))
}

// mortal is a cluster that can do with proof that a node is dead.
type mortal interface {
	Certificate() (frame []byte, peers []string, changed <-chan struct{})
}

// certify hands the guard what it may say when this process has died: now,
// before there is a command, and by a helper whenever it changes.
func (j *job) certify(ctx context.Context, cluster highlander.Cluster, helpers *sync.WaitGroup) {
	m, ok := cluster.(mortal)
	if !ok {
		return
	}
	hand := func() <-chan struct{} {
		frame, peers, changed := m.Certificate()
		j.guard.SetCertificate(guard.Certificate{Frame: frame, Peers: peers})
		return changed
	}
	changed := hand()
	helpers.Go(func() {
		for {
			select {
			case <-changed:
				changed = hand()
			case <-ctx.Done():
				return
			}
		}
	})
}

// verdict turns what Serve returned into the exit code: the command's own,
// wherever it has one.
func (j *job) verdict(err error) error {
	var command *guard.CommandError
	switch {
	case errors.As(err, &command):
		return &exitError{code: command.Code, err: command}
	case j.exit.Code != 0:
		return &exitError{code: j.exit.Code}
	case errors.Is(err, context.Canceled): // by a signal
		return nil
	}
	return err
}

// exitFailed is the failure of a command that ended with a code above zero.
type exitFailed struct{ exit guard.Exit }

func (e *exitFailed) Error() string {
	if e.exit.Signal != 0 {
		return fmt.Sprintf("the command was ended by signal %v", e.exit.Signal)
	}
	return fmt.Sprintf("the command exited with code %d", e.exit.Code)
}

// Serve runs the command once. It implements highlander.Service.
func (j *job) Serve(ctx context.Context) error {
	info, _ := highlander.FromContext(ctx)
	cmd := guard.Command{
		Path: j.path, Args: j.args, Shutdown: j.shutdown,
		Env: commandEnv(os.Environ(), info),
	}
	j.exit = guard.Exit{}
	alive, stop := context.WithCancel(context.WithoutCancel(ctx))
	var extending sync.WaitGroup
	defer extending.Wait()
	defer stop()
	d := &deadline{lease: info, runsOut: j.leasesRunOut, set: j.guard.SetDeadline}
	d.extend() // before the command is there
	extending.Go(func() { d.keepExtending(alive) })
	j.running.Store(true)
	exit, err := j.guard.Run(ctx, cmd)
	j.running.Store(false)
	expired := errors.Is(err, guard.ErrDeadline)
	switch {
	case expired && ctx.Err() == nil:
		return j.frozen(ctx, err)
	case err != nil && !expired:
		return err
	}
	if err == nil && (exit.Code != 0 || j.spec.Restart == highlander.Permanent) {
		waitAtMost(ctx, signalWithin) // before it counts as a failure
	}
	if cause := context.Cause(ctx); errors.Is(cause, highlander.ErrConflict) || errors.Is(cause, highlander.ErrLeaseLost) {
		return nil // it goes on elsewhere: its code here says nothing
	}
	j.exit = exit
	if exit.Code == 0 {
		return nil
	}
	return &exitFailed{exit}
}

// commandEnv returns env with the variables for the command, which may be a
// highlander's own already.
func commandEnv(env []string, info highlander.LeaseInfo) []string {
	for name, value := range map[string]string{
		"HIGHLANDER_ID": info.ID, "HIGHLANDER_NODE": info.Node, "HIGHLANDER_TOKEN": strconv.FormatUint(info.Token(), 10),
	} {
		env = slices.DeleteFunc(env, func(entry string) bool { return strings.HasPrefix(entry, name+"=") })
		env = append(env, name+"="+value)
	}
	return env
}

// frozen is the end of a command that the guard killed because this process
// did not run. Others will have given this node up, or its lease has run out:
// before the command is run again, there is time for that to show.
func (j *job) frozen(ctx context.Context, err error) error {
	j.log.Warn("highlander was not running for a while, and its command was killed", "id", j.spec.ID)
	waitAtMost(ctx, wokenKnows)
	return err
}

// waitAtMost waits for the end of ctx.
func waitAtMost(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// tellHolder logs who runs the command while this node waits, and every change
// of it.
func (j *job) tellHolder(ctx context.Context, cluster highlander.Cluster, s *highlander.Singleton) {
	tick := time.NewTicker(holderEvery)
	defer tick.Stop()
	var last highlander.Holder
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		status := s.Status()
		h := status.Holder
		if h.Node != last.Node && h.Node != "" && h.Node != cluster.Node() {
			j.log.Info("another node holds the id", "id", j.spec.ID, "holder", h.Node, "token", h.Token, "since", h.Since.Format(time.RFC3339))
		}
		last = h
	}
}
