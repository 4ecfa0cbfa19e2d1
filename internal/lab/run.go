//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// steadyFor is how long exactly one child must run for a calm to end.
const steadyFor = 1200 * time.Millisecond

// Outcome is what became of a plan.
type Outcome struct {
	Faults []Fault
	Calms  []Span
}

// runner carries out a plan.
type runner struct {
	lab  *Lab
	logf func(format string, args ...any)

	mu       sync.Mutex
	busy     map[*Node]bool                // a fault has this node's processes to itself
	broken   map[int]func(a, b *Node) Link // by number of the fault
	faults   []Fault
	children *rand.Rand
}

// Run starts highlander on all nodes and carries out a plan. The log has one
// line for each fault. The error is about the lab, or a cluster that does not
// come to rest; what else is wrong is for Check to say.
func (l *Lab) Run(ctx context.Context, p Plan, logf func(format string, args ...any)) (out Outcome, err error) {
	r := &runner{lab: l, logf: logf, busy: map[*Node]bool{}, broken: map[int]func(a, b *Node) Link{}, children: rand.New(rand.NewPCG(p.Seed, 2))}
	begin := now()
	for _, n := range l.Nodes {
		if err := r.start(n); err != nil {
			return out, err
		}
	}
	for _, burst := range append([]Burst{nil}, p.Bursts...) {
		err := r.burst(ctx, burst)
		out.Faults = r.faults
		if err != nil {
			return out, err
		}
		calm := Span{From: begin}
		for _, f := range r.faults {
			calm.From = max(calm.From, f.Until)
		}
		err = r.rest(ctx)
		calm.Until = now()
		out.Calms = append(out.Calms, calm)
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

func (r *runner) start(n *Node) error {
	r.mu.Lock()
	how := drawChild(r.children, r.lab.cfg.Shutdown)
	r.mu.Unlock()
	return n.Start(how)
}

// rest waits until one child runs and goes on to.
func (r *runner) rest(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second+2*r.lab.cfg.TTL)
	defer cancel()
	for {
		one, err := r.lab.AwaitOne(ctx)
		if err != nil {
			return err
		}
		steady, stop := context.WithTimeout(ctx, steadyFor)
		err = r.lab.Await(steady, "a change", func(running []Line) bool {
			return len(running) != 1 || running[0].PID != one.PID
		})
		stop()
		if err != nil && ctx.Err() == nil {
			return nil
		}
	}
}

// burst carries out faults, each in a goroutine of its own.
func (r *runner) burst(ctx context.Context, faults Burst) error {
	var wg sync.WaitGroup
	errs := make([]error, len(faults))
	for i, planned := range faults {
		wg.Go(func() {
			if errs[i] = pause(ctx, planned.At); errs[i] == nil {
				errs[i] = r.fault(ctx, planned)
			}
			if errs[i] != nil {
				errs[i] = fmt.Errorf("fault %v: %w", planned, errs[i])
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ongoing is a fault that is carried out.
type ongoing struct {
	Planned
	r      *runner
	random *rand.Rand
	nodes  []*Node // reserved
	fault  Fault
}

func (r *runner) fault(ctx context.Context, p Planned) error {
	f := &ongoing{Planned: p, r: r, random: rand.New(rand.NewPCG(p.Seed, 3))}
	defer f.free()
	f.fault = Fault{Number: p.Number, Kind: p.Kind}
	err := scripts[p.Kind](ctx, f)
	f.fault.Until = now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, f.fault)
	r.logf("%s fault %d, until %s: %s: %s", strings.TrimSpace(r.lab.stamp(f.fault.From)), p.Number, strings.TrimSpace(r.lab.stamp(f.fault.Until)), p.Kind, f.fault.What)
	return err
}

// begin notes what is about to be broken.
func (f *ongoing) begin(nodes []*Node, format string, args ...any) {
	f.fault.From, f.fault.What, f.fault.Nodes = now(), fmt.Sprintf(format, args...), nil
	for _, n := range nodes {
		f.fault.Nodes = append(f.fault.Nodes, n.Name)
	}
}

// reserve takes nodes whose processes no other fault has in its hands, and
// waits until there are so many.
func (f *ongoing) reserve(ctx context.Context, choose func(free []*Node) []*Node) error {
	for {
		if f.tryReserve(choose) {
			return nil
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("no node is free: %w", err)
		}
	}
}

func (f *ongoing) tryReserve(choose func(free []*Node) []*Node) bool {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	free := slices.DeleteFunc(slices.Clone(f.r.lab.Nodes), func(n *Node) bool { return f.r.busy[n] || !n.Up() })
	f.nodes = choose(free)
	for _, n := range f.nodes {
		f.r.busy[n] = true
	}
	return len(f.nodes) > 0
}

func (f *ongoing) free() {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	for _, n := range f.nodes {
		delete(f.r.busy, n)
	}
	f.nodes = nil
}

// one chooses the node that runs the child in two of three cases.
func (f *ongoing) one(free []*Node) []*Node {
	if len(free) == 0 {
		return nil
	}
	if running := f.r.lab.Running(); len(running) > 0 && f.random.IntN(3) < 2 {
		if holder := f.r.lab.Node(running[len(running)-1]); slices.Contains(free, holder) {
			return []*Node{holder}
		}
	}
	return []*Node{free[f.random.IntN(len(free))]}
}

// all chooses all nodes that are free, when these are most.
func (f *ongoing) all(free []*Node) []*Node {
	if 2*len(free) <= len(f.r.lab.Nodes) {
		return nil
	}
	return free
}

// role says for the log what a node did at that time.
func (f *ongoing) role(n *Node) string {
	if slices.ContainsFunc(f.r.lab.Running(), func(l Line) bool { return l.Name() == n.Name }) {
		return n.Name + ", which runs the child"
	}
	return n.Name
}
