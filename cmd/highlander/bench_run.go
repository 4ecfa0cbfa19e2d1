package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// In quorum mode a kill is measured on highlander run itself, with its guard.
const (
	runTTL = 2 * time.Second

	// The command: it says that it runs, and ends with its standard input, which is
	// that of highlander and ends with the bench.
	runScript = "echo " + runsWord + "; exec cat >/dev/null"
	runsWord  = "runs"
)

// runFleet is three processes of highlander run in quorum mode. It is to be used
// by one goroutine.
type runFleet struct {
	label  string
	addrs  [benchNodes]string
	nodes  [benchNodes]*runNode
	holder *runNode
	ran    time.Duration // when the holder's command said so
	events chan runEvent
	closed chan struct{}
	reads  sync.WaitGroup
}

// runNode is one of the processes.
type runNode struct {
	cmd   *exec.Cmd
	input io.Closer
	guard int // process
	votes bool
	dead  bool
}

// runEvent is a line of a process.
type runEvent struct {
	node *runNode
	at   time.Duration // when it was read; that it runs, if there is no entry
	runLogEntry
	ended bool
}

// runLogEntry is what is looked at of a line of the log.
type runLogEntry struct {
	Msg   string `json:"msg"`
	Guard int    `json:"guard"`
}

// killRuns measures the take-over after a kill in quorum mode.
func (b *bench) killRuns(ctx context.Context, rounds int, victims func(*runNode) []int) ([]result, error) {
	f := &runFleet{label: "fleet-" + rand.Text(), events: make(chan runEvent, 64), closed: make(chan struct{})}
	defer f.close()
	if err := f.findPorts(); err != nil {
		return nil, err
	}
	for i := range f.nodes {
		if err := f.start(i); err != nil {
			return nil, err
		}
	}
	var figures []time.Duration
	for len(figures) < rounds {
		d, err := f.round(ctx, victims)
		if err != nil {
			return nil, fmt.Errorf("round %d: %w", len(figures)+1, err)
		}
		figures = append(figures, d)
		b.progress.update("round %d of %d: %v", len(figures), rounds, d)
	}
	return []result{summarize(figures)}, nil
}

func (b *bench) quorumKill(ctx context.Context, rounds int) ([]result, error) {
	return b.killRuns(ctx, rounds, func(n *runNode) []int { return []int{n.cmd.Process.Pid} })
}

func (b *bench) quorumKillBoth(ctx context.Context, rounds int) ([]result, error) {
	return b.killRuns(ctx, rounds, func(n *runNode) []int { return []int{n.cmd.Process.Pid, n.guard} })
}

// round kills the holder, or more of it, and starts it anew.
func (f *runFleet) round(ctx context.Context, victims func(*runNode) []int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	ready := func() bool {
		for _, n := range f.nodes {
			if !n.votes || n.guard == 0 {
				return false
			}
		}
		return f.holder != nil
	}
	if err := f.until(ctx, "a holder and three votes", ready); err != nil {
		return 0, err
	}
	if err := f.rest(ctx); err != nil {
		return 0, err
	}
	old := f.holder
	f.holder, old.dead = nil, true
	at := monotonicNow()
	if err := killAtOnce(victims(old)); err != nil {
		return 0, err
	}
	if err := f.until(ctx, "the next holder", func() bool { return f.holder != nil }); err != nil {
		return 0, err
	}
	took := f.ran - at
	old.end()
	for i, n := range f.nodes {
		if n == old {
			return took, f.start(i)
		}
	}
	return took, nil
}

// rest lets the new process find its place in the queue.
func (f *runFleet) rest(ctx context.Context) error {
	over, cancel := context.WithTimeout(ctx, 10*restBetween)
	defer cancel()
	if err := f.until(over, "time to pass", func() bool { return false }); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// findPorts looks for ports that a process can be started on again and again.
func (f *runFleet) findPorts() error {
	addrs, err := freeLoopback(len(f.addrs))
	copy(f.addrs[:], addrs)
	return err
}

func (f *runFleet) start(i int) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("start node-%d: %w", i+1, err)
	}
	url := fmt.Sprintf("gossip://%s?label=%s&name=node-%d&join=%s&quorum=2&ttl=%v", f.addrs[i], f.label, i+1, strings.Join(f.addrs[:], ","), runTTL)
	n := &runNode{cmd: exec.Command(exe)}
	n.cmd.Args = []string{os.Args[0], "run", "--id", benchID, "--cluster", url, "--shutdown", "500ms", "--log-level", "debug", "--log-format", "json",
		"--", "sh", "-c", runScript}
	n.cmd.SysProcAttr = nodeAttr()
	in, err := n.cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("start node-%d: %w", i+1, err)
	}
	out, err := n.cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start node-%d: %w", i+1, err)
	}
	log, err := n.cmd.StderrPipe()
	if err != nil {
		return fmt.Errorf("start node-%d: %w", i+1, err)
	}
	if err := n.cmd.Start(); err != nil {
		return fmt.Errorf("start node-%d: %w", i+1, err)
	}
	n.input, f.nodes[i] = in, n
	f.reads.Go(func() { f.readRuns(n, out) })
	f.reads.Go(func() { f.readLog(n, log) })
	return nil
}

func (f *runFleet) readRuns(n *runNode, out io.Reader) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		f.post(runEvent{node: n, at: monotonicNow()})
	}
}

func (f *runFleet) readLog(n *runNode, log io.Reader) {
	for lines := bufio.NewScanner(log); lines.Scan(); {
		e := runEvent{node: n}
		if json.Unmarshal(lines.Bytes(), &e.runLogEntry) == nil && e.Msg != "" {
			f.post(e)
		}
	}
	f.post(runEvent{node: n, ended: true})
}

func (f *runFleet) post(e runEvent) {
	select {
	case f.events <- e:
	case <-f.closed:
	}
}

// until takes events until cond holds.
func (f *runFleet) until(ctx context.Context, what string, cond func() bool) error {
	for !cond() {
		select {
		case e := <-f.events:
			switch {
			case e.ended && !e.node.dead:
				return fmt.Errorf("waiting for %s: a node ended by itself", what)
			case e.ended || e.node.dead:
			case e.Msg == "":
				f.holder, f.ran = e.node, e.at
			case e.Msg == "guard started":
				e.node.guard = e.Guard
			case e.Msg == "this node votes from now on":
				e.node.votes = true
			}
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
		}
	}
	return nil
}

// end kills the process, if it still runs, and waits for it.
func (n *runNode) end() {
	n.dead = true
	n.cmd.Process.Kill()
	n.input.Close()
	n.cmd.Process.Wait()
}

// close ends all processes; their guards end the commands.
func (f *runFleet) close() {
	close(f.closed)
	for _, n := range f.nodes {
		if n != nil {
			n.end()
		}
	}
	f.reads.Wait()
}
