//go:build linux

package lab

import (
	"slices"
	"testing"
	"time"
)

// scenario is a cluster in quorum mode in which one thing happens.
type scenario struct {
	*Lab
	t      *testing.T
	holder *Node
	child  Line // its child
	faults []Fault
}

// begin starts three nodes with children of one kind, and waits for the first
// child.
func begin(t *testing.T, how Child) *scenario {
	t.Helper()
	t.Parallel()
	cfg := modes["quorum"]
	cfg.Nodes, cfg.Quorum, cfg.Seed = 3, 2, 1
	s := &scenario{Lab: newLab(t, cfg), t: t}
	for _, n := range s.Nodes {
		must(t, n.Start(how))
	}
	var err error
	s.child, err = s.AwaitOne(within(t))
	must(t, err)
	s.holder = s.Node(s.child)
	return s
}

// while notes a fault of the holder that lasts until during returns.
func (s *scenario) while(f Fault, during func()) {
	f.Number, f.Nodes, f.From = len(s.faults)+1, []string{s.holder.Name}, now()
	during()
	f.Until = now()
	s.faults = append(s.faults, f)
}

// freeze freezes parts of the holder until another node runs a child, and
// what is to be seen then was seen.
func (s *scenario) freeze(kind Kind, parts []Part, then func(next Line)) {
	s.t.Helper()
	s.while(Fault{Kind: kind}, func() {
		thaw, err := s.holder.Freeze(parts...)
		must(s.t, err)
		then(s.takeOver())
		must(s.t, thaw())
	})
}

// cutOff cuts the holder off from the others.
func (s *scenario) cutOff(during func()) {
	f := Fault{Kind: Split, Sides: [][]string{{s.holder.Name}, {}}}
	for _, n := range s.others() {
		f.Sides[1] = append(f.Sides[1], n.Name)
	}
	s.while(f, func() {
		s.Set(func(from, to int) Link { return Link{Cut: from == s.holder.number || to == s.holder.number} })
		during()
		s.Set(func(_, _ int) Link { return Link{} })
	})
}

func (s *scenario) others() []*Node {
	return slices.DeleteFunc(slices.Clone(s.Nodes), func(n *Node) bool { return n == s.holder })
}

// takeOver waits until another node runs a child, and returns that one.
func (s *scenario) takeOver() (next Line) {
	s.t.Helper()
	must(s.t, s.Await(within(s.t), "a child of another node", func(running []Line) bool {
		i := slices.IndexFunc(running, func(l Line) bool { return l.Name() != s.holder.Name })
		if i >= 0 {
			next = running[i]
		}
		return i >= 0
	}))
	return next
}

// end ends the cluster when the first child is gone, and returns what happened.
func (s *scenario) end() Record {
	s.t.Helper()
	must(s.t, s.Await(within(s.t), "the end of the first child", func(running []Line) bool {
		return !slices.ContainsFunc(running, func(l Line) bool { return l.PID == s.child.PID })
	}))
	r, err := s.Finish(within(s.t))
	must(s.t, err)
	r.Faults = s.faults
	return r
}

// spotless reports every broken promise but those expected.
func (s *scenario) spotless(r Record, expected ...string) {
	s.t.Helper()
	for _, v := range Check(r) {
		if !slices.Contains(expected, v.Rule) {
			s.t.Errorf("%v", v)
		}
	}
	if s.t.Failed() {
		s.t.Log(story(r))
	}
}

// first is the life of the first child.
func (s *scenario) first(r Record) *life {
	children, _ := lives(r.Ledger)
	return children[slices.IndexFunc(children, func(l *life) bool { return l.start.PID == s.child.PID })]
}

func TestChildThatIgnoresSIGTERMIsKilledBeforeItsLeaseEnds(t *testing.T) {
	s := begin(t, Child{Deaf: true, Forks: 1, DeafFork: true, Sessions: true})
	s.cutOff(func() { s.takeOver() })
	r := s.end()
	s.spotless(r)
	if l := s.first(r); l.term == 0 || l.stop != 0 {
		t.Errorf("SIGTERM at %v, end of its own at %v; want it to be told, and killed", l.term, l.stop)
	}
}

// All who voted for the holder start anew, and know nothing of their votes, while
// the lease that these gave still runs.
func TestVotersThatForgotTheirVotesWaitUntilTheseHaveRunOut(t *testing.T) {
	s := begin(t, Child{Deaf: true}) // to the last moment
	s.cutOff(func() {
		for _, n := range s.others() {
			must(t, n.Kill(Highlander))
			<-n.Ended()
			must(t, n.Start(Child{}))
		}
		s.takeOver()
	})
	s.spotless(s.end())
}

func TestFrozenHighlanderLosesItsChildBeforeItsLease(t *testing.T) {
	s := begin(t, Child{})
	s.freeze(FreezeOne, []Part{Highlander}, func(Line) {})
	s.spotless(s.end())
}

func TestFrozenHighlanderAndGuardLoseTheirChildBeforeTheirLease(t *testing.T) {
	s := begin(t, Child{Forks: 1, DeafFork: true, Sessions: true})
	s.freeze(FreezeBoth, []Part{Highlander, Guard}, func(Line) {})
	s.spotless(s.end())
}

// When all three are frozen and the command is not, nobody is left who could
// stop it. What protects then is the token: the next child has a larger one.
func TestWhenAllWhoCouldStopAChildAreFrozenTheTokenProtects(t *testing.T) {
	s := begin(t, Child{})
	var next Line
	s.freeze(FreezeBoth, []Part{Highlander, Guard, Keeper}, func(line Line) {
		next = line
		// A child takes the time of its first line before it writes it: only what
		// comes now is sure to stand after that in the ledger.
		sofar := s.LastSign(s.child.PID)
		must(t, s.Await(within(t), "a write of the first child beside the next one", func([]Line) bool {
			return s.LastSign(s.child.PID) > sofar
		}))
	})
	r := s.end()
	s.spotless(r, RuleOne)
	if next.Token <= s.child.Token {
		t.Errorf("the token of the next child is %d, that of the first was %d", next.Token, s.child.Token)
	}
	accepted, refused, highest := 0, 0, uint64(0) // by a resource that looks at tokens
	for _, l := range r.Ledger {
		if l.Entry == Tick && l.PID == s.child.PID {
			if highest > l.Token {
				refused++
			} else {
				accepted++
			}
		}
		highest = max(highest, l.Token)
	}
	late := s.first(r).last - next.At
	if refused == 0 {
		t.Error("the first child ended before the next one began: this test shows nothing")
	}
	t.Logf("the first child went on for %v after the start of the next one: %d writes before, %d to be refused after", late.Round(time.Millisecond), accepted, refused)
}
