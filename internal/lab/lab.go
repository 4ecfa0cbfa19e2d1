//go:build linux

package lab

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Config says what lab to build.
type Config struct {
	Nodes    int
	Quorum   int           // zero: available mode
	TTL      time.Duration // in quorum mode
	Shutdown time.Duration // of the children
	Seed     uint64        // of the switch
	Binary   string        // highlander
	Dir      string        // for logs, events and the ledger; it must exist
}

// Lab is a cluster of nodes in network namespaces. Its methods may be called
// concurrently.
type Lab struct {
	Nodes []*Node
	*Switch

	cfg     Config
	binary  string
	mark    string
	begin   time.Duration
	helpers sync.WaitGroup
	closed  sync.Once
	stop    context.CancelFunc

	mu        sync.Mutex
	ledger    []Line
	running   []Line // of children, their first lines in order
	stalls    []Span
	instances []*instance
	changed   chan struct{} // closed when any of it changes
}

var labs atomic.Int64

// Possible says why there can be no lab here, or nil.
func Possible() error {
	if os.Geteuid() != 0 {
		return errors.New("only root can make network namespaces and TAP devices")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return fmt.Errorf("there are no TAP devices: %w", err)
	}
	ns, err := newNamespace(0)
	if err != nil {
		return err
	}
	ns.tap.Close()
	ns.close()
	return nil
}

// Build builds the highlander binary into dir.
func Build(ctx context.Context, dir string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOWORK").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOWORK: %w", err)
	}
	binary := filepath.Join(dir, "highlander")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/highlander")
	build.Dir = filepath.Dir(strings.TrimSpace(string(out)))
	if text, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", build, err, text)
	}
	return binary, nil
}

// New builds a lab. Its nodes have nothing on them yet.
func New(cfg Config) (_ *Lab, err error) {
	sweepStale()
	l := &Lab{cfg: cfg, binary: cfg.Binary, mark: newMark(labs.Add(1)), begin: now(), changed: make(chan struct{})}
	defer func() {
		if err != nil {
			for _, n := range l.Nodes {
				n.ns.tap.Close()
				n.close()
			}
		}
	}()
	key := make([]byte, 32)
	rand.Read(key)
	if err := os.WriteFile(l.path("key"), []byte(hex.EncodeToString(key)+"\n"), 0o600); err != nil {
		return nil, err
	}
	ledger, err := os.OpenFile(l.path("ledger"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	var taps []*os.File
	for i := range cfg.Nodes {
		n := &Node{Name: fmt.Sprintf("n%d", i+1), lab: l, number: i}
		if n.ns, err = newNamespace(i); err != nil {
			return nil, err
		}
		l.Nodes = append(l.Nodes, n)
		taps = append(taps, n.ns.tap)
		if err := n.open(cfg.Dir); err != nil {
			return nil, err
		}
	}
	l.Switch = newSwitch(cfg.Seed, taps)
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	l.helpers.Go(func() { l.follow(ctx, ledger) })
	l.helpers.Go(func() { l.pulse(ctx) })
	return l, nil
}

func (l *Lab) path(name string) string { return filepath.Join(l.cfg.Dir, name) }

func (l *Lab) clusterURL(n *Node) string {
	var join []string
	for i := range l.cfg.Nodes {
		if i != n.number {
			join = append(join, nodeAddr(i).String())
		}
	}
	url := fmt.Sprintf("gossip://%v:7946?name=%s&key-file=%s", nodeAddr(n.number), n.Name, l.path("key"))
	if len(join) > 0 {
		url += "&join=" + strings.Join(join, ",")
	}
	if l.cfg.Quorum > 0 {
		return url + fmt.Sprintf("&quorum=%d&ttl=%v&expect=%d", l.cfg.Quorum, l.cfg.TTL, l.cfg.Nodes)
	}
	// On a busy machine, one may come up a second before another. No two of them may
	// start alone then.
	return url + fmt.Sprintf("&expect=%d", l.cfg.Nodes/2+1)
}

func (l *Lab) remember(i *instance) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.instances = append(l.instances, i)
}

// wake makes those in Await look again.
func (l *Lab) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wakeLocked()
}

func (l *Lab) wakeLocked() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// followEvery is how often the ledger is looked at.
const followEvery = 2 * time.Millisecond

// follow reads the ledger as it grows.
func (l *Lab) follow(ctx context.Context, ledger *os.File) {
	defer ledger.Close()
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	var rest []byte
	chunk := make([]byte, 1<<20)
	for {
		n, err := ledger.Read(chunk)
		if err != nil && err != io.EOF {
			panic(fmt.Sprintf("lab: read the ledger: %v", err))
		}
		if n > 0 {
			lines, after, err := parseLines(append(rest, chunk[:n]...))
			if err != nil {
				panic("lab: " + err.Error())
			}
			rest = slices.Clone(after)
			l.take(lines)
			continue
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (l *Lab) take(lines []Line) {
	for _, line := range lines {
		if line.Entry == Start || line.Entry == Fork {
			l.append(line)
			watchEnd(line.PID, func(at time.Duration) {
				l.append(Line{At: at, Entry: Dead, Node: line.Node, PID: line.PID, Token: line.Token})
			})
		} else {
			l.append(line)
		}
	}
}

func (l *Lab) append(line Line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ledger = append(l.ledger, line)
	switch line.Entry {
	case Start:
		l.running = append(l.running, line)
	case Dead:
		l.running = slices.DeleteFunc(l.running, func(r Line) bool { return r.PID == line.PID })
	}
	l.wakeLocked()
}

// A machine whose pulse is late by stallAfter is too busy to be taken at its word.
const (
	pulseEvery = 20 * time.Millisecond
	stallAfter = 250 * time.Millisecond
)

// pulse notes when this process did not get to run.
func (l *Lab) pulse(ctx context.Context) {
	tick := time.NewTicker(pulseEvery)
	defer tick.Stop()
	last := now()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		at := now()
		if at-last > stallAfter {
			l.mu.Lock()
			l.stalls = append(l.stalls, Span{last, at})
			l.mu.Unlock()
		}
		last = at
	}
}

// Running returns the first lines of the children that run, in the order of
// their starts.
func (l *Lab) Running() []Line {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.running)
}

// LastSign returns when a child wrote its last line so far.
func (l *Lab) LastSign(pid int) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range slices.Backward(l.ledger) {
		if line.PID == pid && line.Entry != Dead {
			return line.At
		}
	}
	return 0
}

// Await waits until cond holds for the children that run, in the order of
// their starts. It looks whenever the ledger grows.
func (l *Lab) Await(ctx context.Context, what string, cond func(running []Line) bool) error {
	for {
		l.mu.Lock()
		running, changed := slices.Clone(l.running), l.changed
		l.mu.Unlock()
		if cond(running) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s, while %d children run: %w", what, len(running), context.Cause(ctx))
		}
	}
}

// AwaitOne waits until exactly one child runs, and returns its first line.
func (l *Lab) AwaitOne(ctx context.Context) (one Line, err error) {
	err = l.Await(ctx, "one child", func(running []Line) bool {
		if len(running) != 1 {
			return false
		}
		one = running[0]
		return true
	})
	return one, err
}

// Node returns the node on which a line was written.
func (l *Lab) Node(line Line) *Node {
	return l.Nodes[slices.IndexFunc(l.Nodes, func(n *Node) bool { return n.Name == line.Name() })]
}

// Finish sends SIGTERM to every highlander that runs, waits until all have
// ended, and returns the record, to which the caller adds its faults and calms.
func (l *Lab) Finish(ctx context.Context) (Record, error) {
	for _, n := range l.Nodes {
		if n.Up() {
			if err := n.Terminate(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return Record{}, fmt.Errorf("%s: SIGTERM: %w", n.Name, err)
			}
		}
	}
	var errs []error
	for _, n := range l.Nodes {
		if n.current != nil {
			errs = append(errs, n.awaitEnd(ctx))
		}
	}
	left := l.left(ctx)
	// The watchers notice a moment later what has ended.
	errs = append(errs, l.Await(ctx, "the end of all children", func(running []Line) bool { return len(running) == 0 }))
	return l.record(left), errors.Join(errs...)
}

func (l *Lab) record(left []string) Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := Record{
		TTL: l.cfg.TTL, Quorum: l.cfg.Quorum, Shutdown: l.cfg.Shutdown, Begin: l.begin, End: now(),
		Ledger: slices.Clone(l.ledger), Stalls: slices.Clone(l.stalls), Left: left,
	}
	for _, i := range l.instances {
		i.node.mu.Lock()
		r.Processes = append(r.Processes, i.Process)
		i.node.mu.Unlock()
	}
	return r
}

// leaveWithin is what guards have to end, which may still be telling others of
// a death, when they are asked to. That takes them a second, but on a busy machine.
const leaveWithin = 20 * time.Second

// left returns what still runs of this lab, for people.
func (l *Lab) left(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, leaveWithin)
	defer cancel()
	for _, p := range l.marked() {
		if p.name == "hl-guard" {
			_ = unix.Kill(p.pid, unix.SIGTERM)
		}
	}
	for len(l.marked()) > 0 && pause(ctx, 20*time.Millisecond) == nil {
	}
	var left []string
	for _, p := range l.marked() {
		left = append(left, fmt.Sprintf("%s, process %d, child of %d", p.name, p.pid, p.parent))
	}
	return left
}

func (l *Lab) marked() []procStat { return marked(func(mark string) bool { return mark == l.mark }) }

// Close ends everything. It is idempotent.
func (l *Lab) Close() { l.closed.Do(l.close) }

func (l *Lab) close() {
	l.Switch.close()
	for _, n := range l.Nodes {
		n.close()
	}
	for found := l.marked(); len(found) > 0; found = l.marked() {
		for _, p := range found {
			_ = unix.Kill(p.pid, unix.SIGKILL)
		}
		time.Sleep(time.Millisecond) // nobody tells when they are gone
	}
	l.stop()
	l.helpers.Wait()
}
