package lab

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// settleAvailable is what available mode has, once nothing is broken any
	// more, to come to exactly one child.
	settleAvailable = 5 * time.Second
	// settleQuorum is the same of quorum mode, beyond the TTL: a node that has
	// started anew votes for nobody for 1.04 TTL, and has to join before.
	settleQuorum = 5 * time.Second
	// patience is what a machine that has stalled may add to that.
	patience = 5 * time.Second
	// joinWithin is how long after its start a node may not have joined.
	joinWithin = 2 * time.Second
	// meetWithin is how long nodes that have given each other up may go on to.
	meetWithin = 3 * time.Second
	// orphanWithin is how long a child may outlive its highlander: the guard, or
	// the keeper, has to notice, look at /proc, and kill.
	orphanWithin = 2 * time.Second
	// guardWithin is how long a child may outlive its guard or its keeper.
	guardWithin = 2 * time.Second
	// exitWithin is what highlander has to end at SIGTERM, beyond its child's
	// time to stop.
	exitWithin = 5 * time.Second
	// frozenFor is how long highlander must have been frozen before its child may
	// be killed unwarned: until that moment highlander itself would warn it.
	frozenFor = 800 * time.Millisecond
	// wokenFor is how long after the end of a freeze what it did may show, beyond the
	// child's time to stop: highlander wakes when it should have warned the child for
	// long, and at the deadline the guard kills that.
	wokenFor = 500 * time.Millisecond
	// hurry is how much shorter than Shutdown the time between SIGTERM and the
	// death may seem, as a child writes down its SIGTERM late.
	hurry = 300 * time.Millisecond
)

// Violation is a promise that was broken.
type Violation struct {
	Rule string
	At   time.Duration
	What string
}

// String returns v for people.
func (v Violation) String() string { return fmt.Sprintf("%s: %s", v.Rule, v.What) }

// The rules.
const (
	RuleLedger  = "the ledger is whole"
	RuleOne     = "never two children" // quorum mode
	RuleOverlap = "two children only while the network was broken or a node frozen"
	RuleTokens  = "tokens grow in the order of the starts"
	RuleSettled = "exactly one child once nothing is broken"
	RuleServed  = "the larger side of a split has a child"
	RuleLarger  = "the larger side is kept"
	RuleWarned  = "SIGTERM before SIGKILL"
	RuleOrphan  = "no child outlives its highlander"
	RuleLeft    = "nothing is left behind"
	RuleExit    = "highlander ends when it is told to, and only then"
)

// Check returns what was broken, in the order of time.
func Check(r Record) []Violation {
	c := checker{Record: r}
	c.children, c.grandchildren = lives(r.Ledger)
	c.ledger()
	if r.Quorum > 0 {
		c.never()
	} else {
		c.overlaps()
	}
	c.tokens()
	c.settled()
	c.splits()
	c.warned()
	c.orphans()
	c.exits()
	slices.SortStableFunc(c.found, func(a, b Violation) int { return cmp.Compare(a.At, b.At) })
	return c.found
}

type checker struct {
	Record
	children, grandchildren []*life
	found                   []Violation
}

func (c *checker) report(rule string, at time.Duration, format string, args ...any) {
	c.found = append(c.found, Violation{rule, at, fmt.Sprintf("at %v: ", at-c.Begin) + fmt.Sprintf(format, args...)})
}

// settle is how long it may take to come to one child, in a span that begins
// with from.
func (c *checker) settle(from time.Duration) time.Duration {
	d := settleAvailable
	if c.Quorum > 0 {
		d = c.TTL + settleQuorum
	}
	return c.stretch(Span{from, from + d + c.Shutdown}).length()
}

// stretch adds the stalls of the machine to a span.
func (c *checker) stretch(s Span) Span {
	for _, stall := range c.Stalls {
		if s.overlaps(stall) {
			s.Until += stall.length()
		}
	}
	return s
}

// ledger: what is in it makes sense.
func (c *checker) ledger() {
	known := map[int]bool{}
	for _, l := range c.Ledger {
		switch {
		case l.Entry == Start || l.Entry == Fork:
			known[l.PID] = true
			if l.Token == 0 {
				c.report(RuleLedger, l.At, "%v has no token", name(l))
			}
			if c.processOf(l) == nil {
				c.report(RuleLedger, l.At, "%v has no highlander", name(l))
			}
		case !known[l.PID]:
			c.report(RuleLedger, l.At, "%s by process %d, which never started", l.Entry, l.PID)
		}
	}
}

// never: quorum mode, not by a microsecond.
func (c *checker) never() {
	for _, l := range c.children {
		if l.overlap != 0 {
			span, _ := l.overlapped(c.End)
			c.report(RuleOne, l.start.At, "%v ran beside %s for %v", name(l.start), l.other, span.length())
		}
	}
	c.ticksBeside(RuleOne, nil)
}

// ticksBeside finds children that say that they ran beside each other, whatever
// the lock says.
func (c *checker) ticksBeside(rule string, excused []Span) {
	for _, l := range c.children {
		if l.overlap != 0 {
			continue // known
		}
		for _, other := range c.children {
			if other == l || other.start.At > l.start.At || other.last <= l.start.At {
				continue
			}
			if !covered(Span{l.start.At, min(l.last, other.last)}, excused) {
				c.report(rule, l.start.At, "%v had started %v before %v gave its last sign, and found the lock free", name(l.start), other.last-l.start.At, name(other.start))
			}
		}
	}
}

// excuses are the times in which available mode may have two children: while
// something is broken, until what it did is mended. In a stall of the machine
// every node is frozen.
func (c *checker) excuses() []Span {
	var spans []Span
	for _, f := range c.Faults {
		if f.Kind.parts() {
			spans = append(spans, f.grow(c.settle(f.Until)))
		}
	}
	for _, s := range c.Stalls {
		spans = append(spans, s.grow(c.settle(s.Until)))
	}
	slices.SortFunc(spans, func(a, b Span) int { return cmp.Compare(a.From, b.From) })
	var merged []Span
	for _, s := range spans {
		if n := len(merged); n > 0 && s.From <= merged[n-1].Until {
			merged[n-1].Until = max(merged[n-1].Until, s.Until)
		} else {
			merged = append(merged, s)
		}
	}
	return merged
}

func covered(s Span, by []Span) bool {
	return slices.ContainsFunc(by, func(b Span) bool { return b.From <= s.From && s.Until <= b.Until })
}

// overlaps: available mode.
func (c *checker) overlaps() {
	excuses := c.excuses()
	for _, l := range c.children {
		if span, ok := l.overlapped(c.End); ok && !covered(span, excuses) {
			c.report(RuleOverlap, l.start.At, "%v ran beside %s for %v", name(l.start), l.other, span.length())
		}
	}
	c.ticksBeside(RuleOverlap, excuses)
}

// tokens: a child of a new lease has a larger token. In available mode a part of
// the cluster need not know of the tokens of the other.
func (c *checker) tokens() {
	var excuses []Span
	if c.Quorum == 0 {
		excuses = c.excuses()
	}
	for i, l := range c.children[min(1, len(c.children)):] {
		last := c.children[i].start
		again := last.Node == l.start.Node && last.Token == l.start.Token // a restart under the same lease
		if l.start.Token > last.Token || again || (Span{last.At, l.start.At}).meets(excuses) {
			continue
		}
		c.report(RuleTokens, l.start.At, "%v has token %d, and %v had %d before", name(l.start), l.start.Token, name(last), last.Token)
	}
}

// settled: in every calm.
func (c *checker) settled() {
	for _, calm := range c.Calms {
		settled := calm.From + c.settle(calm.From)
		if (Span{calm.From - patience, settled}).meets(c.Stalls) {
			settled += patience
		}
		at := Span{min(settled, calm.Until), calm.Until}
		var there []string
		steady := false
		for _, l := range c.children {
			if lived := l.lived(c.End); lived.overlaps(at) {
				there = append(there, name(l.start))
				steady = lived.From <= at.From && at.Until <= lived.Until
			}
		}
		if len(there) != 1 || !steady {
			c.report(RuleSettled, at.From, "%v after the last fault, from here to %v, there were [%s], want one all the time",
				at.From-calm.From, at.Until-c.Begin, strings.Join(there, " "))
		}
	}
}

// splits: in two, with nothing else broken.
func (c *checker) splits() {
	for _, f := range c.Faults {
		larger := f.larger()
		if larger == nil || !c.clean(f) {
			continue
		}
		horizon := f.Until + c.settle(f.Until)
		for _, o := range c.Faults {
			if o.From > f.Until {
				horizon = min(horizon, o.From)
			}
		}
		for _, p := range c.Processes {
			for _, told := range []time.Duration{p.Termed, p.Killed} {
				if told > f.Until {
					horizon = min(horizon, told) // the end of the lab
				}
			}
		}
		horizon = min(horizon, c.End)
		served := false
		for _, l := range c.children {
			if !slices.Contains(larger, l.start.Name()) || !l.lived(c.End).overlaps(Span{f.Until, horizon}) {
				continue
			}
			served = served || l.lived(c.End).has(f.Until)
			if until := l.lived(horizon).Until; until < horizon {
				c.report(RuleLarger, until, "%v, on the larger side of fault %d, ended %v after it was healed", name(l.start), f.Number, until-f.Until)
			}
		}
		if !served && f.length() > c.settle(f.From) {
			c.report(RuleServed, f.Until, "fault %d lasted %v, and no child ran on the side of %v at its end", f.Number, f.length(), larger)
		}
	}
}

// larger returns the larger side of a split in two, if there is one.
func (f Fault) larger() []string {
	if len(f.Sides) != 2 || len(f.Sides[0]) == len(f.Sides[1]) {
		return nil
	}
	return slices.MaxFunc(f.Sides, func(a, b []string) int { return cmp.Compare(len(a), len(b)) })
}

// clean says that nothing else was broken around a fault.
func (c *checker) clean(f Fault) bool {
	around := Span{f.From - c.settle(f.From), f.Until}
	if around.meets(c.Stalls) || (Span{f.Until, f.Until + c.settle(f.Until)}).meets(c.Stalls) {
		return false
	}
	// In quorum mode a node that has just started votes for nobody.
	mute := Span{f.From - c.TTL - c.TTL/25 - joinWithin, f.Until}
	if c.Quorum > 0 && slices.ContainsFunc(c.Processes, func(p Process) bool { return mute.has(p.Started) }) {
		return false
	}
	return !slices.ContainsFunc(c.Faults, func(o Fault) bool {
		after := time.Second
		if o.Kind.parts() {
			after = meetWithin
		}
		return o.Number != f.Number && o.grow(after).overlaps(f.Span)
	})
}

// warned: who was killed had been told to stop, and had the time to.
func (c *checker) warned() {
	for _, l := range c.children {
		if l.dead == 0 || l.stop != 0 || c.unwarned(l) {
			continue
		}
		had := l.dead - l.term
		switch {
		case l.term == 0 && l.dead-l.last >= c.Shutdown-hurry: // it did not get to say so
		case l.term == 0:
			c.report(RuleWarned, l.dead, "%v was killed and never got a SIGTERM", name(l.start))
		case had < c.Shutdown-hurry:
			c.report(RuleWarned, l.dead, "%v was killed %v after its SIGTERM; it has %v to stop", name(l.start), had, c.Shutdown)
		}
	}
}

// unwarned says that l had to die without being told: highlander, its guard or
// its keeper was killed, or highlander was frozen for too long to tell it.
func (c *checker) unwarned(l *life) bool {
	if p := c.processOf(l.start); p != nil && p.Killed != 0 && p.Killed <= l.dead {
		return true
	}
	near := Span{l.dead - 2*time.Second, l.dead}
	if near.meets(c.Stalls) {
		return true
	}
	return slices.ContainsFunc(c.Faults, func(f Fault) bool {
		if !slices.Contains(f.Nodes, l.start.Name()) {
			return false
		}
		switch {
		case f.Kind == KillGuard || f.Kind == KillKeeper:
			return (Span{f.From, f.From + guardWithin}).has(l.dead)
		case f.Kind.freezes():
			return (Span{f.From + frozenFor, f.Until + c.Shutdown + wokenFor}).has(l.dead)
		}
		return false
	})
}

// orphans: the guard's work.
func (c *checker) orphans() {
	for _, l := range slices.Concat(c.children, c.grandchildren) {
		p := c.processOf(l.start)
		switch {
		case p == nil || p.Exited == 0:
		case l.dead == 0:
			c.report(RuleOrphan, p.Exited, "%v was never seen to end", name(l.start))
		case l.dead > c.stretch(Span{p.Exited, p.Exited + orphanWithin}).Until:
			c.report(RuleOrphan, l.dead, "%v outlived highlander by %v", name(l.start), l.dead-p.Exited)
		}
	}
	for _, left := range c.Left {
		c.report(RuleLeft, c.End, "%s", left)
	}
}

// exits: of highlander itself.
func (c *checker) exits() {
	for _, p := range c.Processes {
		who := fmt.Sprintf("highlander of %s, process %d", p.Node, p.PID)
		switch {
		case p.Killed != 0:
		case p.Termed == 0 && p.Exited != 0:
			c.report(RuleExit, p.Exited, "%s ended by itself: %s", who, p.How)
		case p.Termed != 0:
			has := c.Shutdown + exitWithin
			for _, f := range c.Faults {
				if f.Kind.freezes() && slices.Contains(f.Nodes, p.Node) && f.Until > p.Termed {
					has += f.length()
				}
			}
			if exited, until := cmp.Or(p.Exited, c.End), c.stretch(Span{p.Termed, p.Termed + has}).Until; exited > until || p.Exited == 0 {
				c.report(RuleExit, exited, "%s got SIGTERM %v ago; it has %v to end", who, exited-p.Termed, until-p.Termed)
			}
		}
	}
}

// processOf returns the highlander under which a child started.
func (c *checker) processOf(start Line) *Process {
	var found *Process
	for i, p := range c.Processes {
		if p.Node == start.Name() && p.Started <= start.At {
			found = &c.Processes[i]
		}
	}
	return found
}

func name(l Line) string { return fmt.Sprintf("%s/%d", l.Node, l.PID) }
