//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// script carries out a fault. It calls begin right before it breaks anything.
type script func(ctx context.Context, f *ongoing) error

var scripts = map[Kind]script{
	KillHighlander: kill(Highlander),
	KillBoth:       kill(Guard, Highlander),
	KillGuard:      hurt(Guard),
	KillKeeper:     hurt(Keeper),
	Terminate:      terminate,
	FreezeOne:      freeze(Highlander),
	FreezeBoth:     freeze(Highlander, Guard),
	Split:          split,
	SplitUntilWon:  splitUntilWon,
	Partial:        partial,
	OneWay:         oneWay,
	Loss:           loss,
	Delay:          delay,
	Rolling:        rolling,
	KillAll:        killAll,
	TerminateAll:   terminateAll,
	FreezeAll:      freezeAll,
}

// hit strikes a node that has all parts. One of them may be starting, or being
// replaced, and a node that waits replaces none: after a while another one is
// chosen.
func (f *ongoing) hit(ctx context.Context, what func(n *Node) string, strike func(n *Node) error) (*Node, error) {
	for {
		if err := f.reserve(ctx, f.one); err != nil {
			return nil, err
		}
		n := f.nodes[0]
		for range 50 {
			f.begin(f.nodes, "%s", what(n))
			if strike(n) == nil {
				return n, nil
			}
			if err := pause(ctx, 20*time.Millisecond); err != nil {
				return nil, err
			}
		}
		f.free()
	}
}

func kill(parts ...Part) script {
	return func(ctx context.Context, f *ongoing) error {
		what := func(n *Node) string { return fmt.Sprintf("%s; started again after %v", f.role(n), f.For) }
		n, err := f.hit(ctx, what, func(n *Node) error { return n.Kill(parts...) })
		if err != nil {
			return err
		}
		return f.startAgain(ctx, n)
	}
}

// startAgain starts highlander again when it has ended, after a while.
func (f *ongoing) startAgain(ctx context.Context, n *Node) error {
	if err := n.awaitEnd(ctx); err != nil {
		return err
	}
	if err := pause(ctx, f.For); err != nil {
		return err
	}
	return f.r.start(n)
}

// grownUp is the age from which highlander replaces a helper that was killed.
// While it starts it gives up with an error, and is for a service manager to
// start again.
const grownUp = time.Second

// hurt kills a helper, which highlander replaces when it next runs a command.
func hurt(part Part) script {
	return func(ctx context.Context, f *ongoing) error {
		_, err := f.hit(ctx, f.role, func(n *Node) error {
			if age := n.age(); age < grownUp {
				return fmt.Errorf("highlander is only %v old", age)
			}
			return n.Kill(part)
		})
		if err != nil {
			return err
		}
		return pause(ctx, f.For)
	}
}

func terminate(ctx context.Context, f *ongoing) error {
	if err := f.reserve(ctx, f.one); err != nil {
		return err
	}
	f.begin(f.nodes, "%s; started again after %v", f.role(f.nodes[0]), f.For)
	if err := f.nodes[0].Terminate(); err != nil {
		return err
	}
	return f.startAgain(ctx, f.nodes[0])
}

// freeze stops parts of a node. In some cases what is frozen is killed.
func freeze(parts ...Part) script {
	return func(ctx context.Context, f *ongoing) error {
		thenKilled, how := f.random.IntN(5) == 0, "woken"
		if thenKilled {
			how = "killed"
		}
		var thaw func() error
		what := func(n *Node) string { return fmt.Sprintf("%s; %s after %v", f.role(n), how, f.For) }
		n, err := f.hit(ctx, what, func(n *Node) (err error) { thaw, err = n.Freeze(parts...); return err })
		if err != nil {
			return err
		}
		err = pause(ctx, f.For)
		if thenKilled && err == nil {
			if err := n.Kill(Highlander); err != nil {
				return err
			}
			if err := f.startAgain(ctx, n); err != nil {
				return err
			}
		}
		return errors.Join(err, thaw())
	}
}

func freezeAll(ctx context.Context, f *ongoing) error {
	if err := f.reserve(ctx, f.all); err != nil {
		return err
	}
	f.begin(f.nodes, "%s, for %v", names(f.nodes), f.For)
	var errs []error
	var thaws []func() error
	for _, n := range f.nodes {
		thaw, err := n.Freeze(Highlander)
		if errs = append(errs, err); err == nil {
			thaws = append(thaws, thaw)
		}
	}
	errs = append(errs, pause(ctx, f.For))
	for _, thaw := range thaws {
		errs = append(errs, thaw())
	}
	return errors.Join(errs...)
}

func killAll(ctx context.Context, f *ongoing) error {
	return f.allAtOnce(ctx, func(n *Node) error { return n.Kill(Highlander) })
}

func terminateAll(ctx context.Context, f *ongoing) error {
	return f.allAtOnce(ctx, (*Node).Terminate)
}

// allAtOnce ends highlander on all nodes; each is started again after a while
// of its own.
func (f *ongoing) allAtOnce(ctx context.Context, end func(*Node) error) error {
	if err := f.reserve(ctx, f.all); err != nil {
		return err
	}
	f.begin(f.nodes, "%s; started again within %v", names(f.nodes), f.For)
	var wg sync.WaitGroup
	errs := make([]error, len(f.nodes))
	for i, n := range f.nodes {
		one := *f
		one.For = between(f.random, 0, f.For+1)
		errs[i] = end(n)
		wg.Go(func() { errs[i] = errors.Join(errs[i], one.startAgain(ctx, n)) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func rolling(ctx context.Context, f *ongoing) error {
	if err := f.reserve(ctx, f.all); err != nil {
		return err
	}
	f.random.Shuffle(len(f.nodes), func(i, j int) { f.nodes[i], f.nodes[j] = f.nodes[j], f.nodes[i] })
	f.begin(f.nodes, "%s, in this order, with %v between two", names(f.nodes), f.For)
	for _, n := range f.nodes {
		if err := n.Terminate(); err != nil {
			return err
		}
		if err := f.startAgain(ctx, n); err != nil {
			return err
		}
		if err := pause(ctx, f.For); err != nil {
			return err
		}
	}
	return nil
}

func names(nodes []*Node) string {
	var all []string
	for _, n := range nodes {
		all = append(all, n.Name)
	}
	return strings.Join(all, " ")
}

// disturb makes links bad until the fault is over.
func (f *ongoing) disturb(link func(from, to *Node) Link) {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	if link == nil {
		delete(f.r.broken, f.Number)
	} else {
		f.r.broken[f.Number] = link
	}
	nodes := f.r.lab.Nodes
	f.r.lab.Set(func(from, to int) (worst Link) {
		for _, broken := range f.r.broken {
			worst = worst.with(broken(nodes[from], nodes[to]))
		}
		return worst
	})
}

// while has links bad for the time of the fault.
func (f *ongoing) while(ctx context.Context, link func(from, to *Node) Link) error {
	f.disturb(link)
	defer f.disturb(nil)
	return pause(ctx, f.For)
}

// cutBetween cuts the nodes of one side from those of the other.
func cutBetween(side []*Node) func(from, to *Node) Link {
	return func(from, to *Node) Link {
		return Link{Cut: slices.Contains(side, from) != slices.Contains(side, to)}
	}
}

// beginSplit draws a side and cuts it off.
func (f *ongoing) beginSplit(side []*Node) {
	var other []*Node
	for _, n := range f.r.lab.Nodes {
		if !slices.Contains(side, n) {
			other = append(other, n)
		}
	}
	holder := "nobody"
	if running := f.r.lab.Running(); len(running) > 0 {
		holder = running[len(running)-1].Name()
	}
	f.begin(f.r.lab.Nodes, "%s | %s for %v; %s ran the child", names(side), names(other), f.For, holder)
	for _, nodes := range [][]*Node{side, other} {
		f.fault.Sides = append(f.fault.Sides, strings.Fields(names(nodes)))
	}
}

func (f *ongoing) shuffled() []*Node {
	nodes := slices.Clone(f.r.lab.Nodes)
	f.random.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	return nodes
}

func split(ctx context.Context, f *ongoing) error {
	nodes := f.shuffled()
	side := nodes[:1+f.random.IntN(len(nodes)-1)]
	f.beginSplit(side)
	return f.while(ctx, cutBetween(side))
}

// splitUntilWon cuts the holder off, alone or with others but in the smaller
// part, and heals the split in the very moment in which the larger part gives it up
// or has a holder of its own.
func splitUntilWon(ctx context.Context, f *ongoing) error {
	one, err := f.r.lab.AwaitOne(ctx)
	if err != nil {
		return err
	}
	holder := f.r.lab.Node(one)
	others := slices.DeleteFunc(f.shuffled(), func(n *Node) bool { return n == holder })
	side := append([]*Node{holder}, others[:f.random.IntN((len(others)+1)/2)]...)
	larger := others[len(side)-1:]
	sign := []struct{ file, text string }{{"log", "was given up"}, {"log", "lease acquired"}, {"events", `"acquired"`}}[f.random.IntN(3)]
	late := between(f.random, 0, 30*time.Millisecond)
	f.For = 0
	f.beginSplit(side)
	f.fault.What += fmt.Sprintf("; healed %v after the first %q there", late, sign.text)
	sizes := map[*Node]int64{}
	for _, n := range larger {
		sizes[n] = n.size(sign.file)
	}
	f.disturb(cutBetween(side))
	defer f.disturb(nil)
	for give := now() + 15*time.Second; now() < give; {
		for _, n := range larger {
			if bytes.Contains(n.since(sign.file, sizes[n]), []byte(sign.text)) {
				return pause(ctx, late)
			}
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	return nil // Check says that nobody was there
}

func (n *Node) file(which string) string {
	if which == "events" {
		return n.events
	}
	return n.log.Name()
}

func (n *Node) size(which string) int64 {
	info, err := os.Stat(n.file(which))
	if err != nil {
		return 0
	}
	return info.Size()
}

// since returns what was written to a file of the node since it had a size.
func (n *Node) since(which string, size int64) []byte {
	if n.size(which) <= size {
		return nil
	}
	text, err := os.ReadFile(n.file(which))
	if err != nil {
		return nil
	}
	return text[size:]
}

// partial cuts one link between two nodes that both reach the others.
func partial(ctx context.Context, f *ongoing) error {
	nodes := f.shuffled()
	a, b := nodes[0], nodes[1]
	f.begin([]*Node{a, b}, "%s and %s do not reach each other for %v", f.role(a), f.role(b), f.For)
	return f.while(ctx, func(from, to *Node) Link {
		return Link{Cut: from == a && to == b || from == b && to == a}
	})
}

// oneWay loses what a node sends, or what it should receive, or one direction of
// one link.
func oneWay(ctx context.Context, f *ongoing) error {
	nodes := f.shuffled()
	a, b := nodes[0], nodes[1]
	switch f.random.IntN(3) {
	case 0:
		f.begin([]*Node{a}, "nothing that %s sends arrives, for %v", f.role(a), f.For)
		return f.while(ctx, func(from, _ *Node) Link { return Link{Cut: from == a} })
	case 1:
		f.begin([]*Node{a}, "%s receives nothing, for %v", f.role(a), f.For)
		return f.while(ctx, func(_, to *Node) Link { return Link{Cut: to == a} })
	}
	f.begin([]*Node{a, b}, "nothing from %s reaches %s, for %v", f.role(a), f.role(b), f.For)
	return f.while(ctx, func(from, to *Node) Link { return Link{Cut: from == a && to == b} })
}

func loss(ctx context.Context, f *ongoing) error {
	share := 0.05 + 0.25*f.random.Float64()
	f.begin(f.r.lab.Nodes, "%.0f %% of all frames, for %v", 100*share, f.For)
	return f.while(ctx, func(_, _ *Node) Link { return Link{Loss: share} })
}

func delay(ctx context.Context, f *ongoing) error {
	l := Link{Delay: between(f.random, 10*time.Millisecond, 300*time.Millisecond), Jitter: between(f.random, 0, 300*time.Millisecond)}
	f.begin(f.r.lab.Nodes, "%v and up to %v more, for %v", l.Delay, l.Jitter, f.For)
	return f.while(ctx, func(_, _ *Node) Link { return l })
}
