package gossip_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"highlander"
	"highlander/gossip"
)

// The behaviours of the original, derekkraan/highlander.

func TestTwoIDsBothRun(t *testing.T) {
	t.Parallel()
	nodes := newWorld(t).cluster(2)
	one, two := newStage(t, "one"), newStage(t, "two")
	one.wrap(nodes[0])
	two.wrap(nodes[0])
	one.runsOn(nodes[0])
	two.runsOn(nodes[0])
}

func TestSameIDTwiceInOneProcessRunsOnce(t *testing.T) {
	t.Parallel()
	c := newWorld(t).join("alone")
	s := newStage(t, "id")
	first := s.wrap(c)
	s.runsOn(c)
	second := s.wrap(c)
	first.end()
	s.await("the second one runs", func() bool { return s.starts == 2 && s.running[c.Node()] })
	second.end()
	s.never(1)
}

func TestSameIDOnAllNodesRunsOnce(t *testing.T) {
	t.Parallel()
	nodes := newWorld(t).cluster(3)
	s := newStage(t, "id")
	for _, c := range nodes {
		s.wrap(c)
	}
	s.oneRuns()
	passRound(t, nodes) // whoever was to start as well has had its chance
	s.never(1)
}

// passRound hands another id through all nodes, a few times: a clock made of
// messages.
func passRound(t testing.TB, nodes []*gossip.Cluster) {
	t.Helper()
	for range 3 {
		for _, c := range nodes {
			if err := acquire(t, c, "round").Release(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestHolderEndsAndTheOtherTakesOverOnce(t *testing.T) {
	t.Parallel()
	nodes := newWorld(t).cluster(2)
	s := newStage(t, "id")
	holder := s.wrap(nodes[0])
	s.runsOn(nodes[0])
	s.wrap(nodes[1])
	holder.end()
	s.runsOn(nodes[1])
	passRound(t, nodes)
	s.never(1)
	s.await("two starts", func() bool { return s.starts == 2 })
	if causes := s.endedBy(nodes[0].Node()); !isCause(causes, highlander.ErrShutdown) || errors.Is(causes[0], highlander.ErrConflict) {
		t.Errorf("the first child was told to stop with %v, want ErrShutdown", causes)
	}
}

func TestCleanupRunsWhenTheProgramEnds(t *testing.T) {
	t.Parallel()
	c := newWorld(t).join("alone")
	s := newStage(t, "id")
	r := s.wrap(c)
	s.runsOn(c)
	if err := r.end(); !errors.Is(err, context.Canceled) {
		t.Errorf("Serve returned %v, want the error of its context", err)
	}
	if causes := s.endedBy(c.Node()); !isCause(causes, highlander.ErrShutdown) {
		t.Errorf("the child was told to stop with %v, want ErrShutdown", causes)
	}
}

func TestNetsplitOfTwoBothRunThenOneCleansUp(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	nodes := w.cluster(2)
	s := newStage(t, "id")
	for _, c := range nodes {
		s.wrap(c)
	}
	s.oneRuns()
	w.split(nodes[:1], nodes[1:])
	s.run(2)
	w.heal()
	left := s.oneRuns()
	w.see(2, nodes...)
	passRound(t, nodes)

	winner, losers := pick(nodes, left)
	if causes := s.endedBy(winner.Node()); len(causes) != 0 {
		t.Errorf("the one that is left was told to stop: %v", causes)
	}
	if causes := s.endedBy(losers[0].Node()); !isCause(causes, highlander.ErrConflict) {
		t.Errorf("the other one cleaned up after %v, want one ErrConflict", causes)
	}
	s.runsOn(winner)
}

func TestNetsplitOfTenLeavesTheLargerSide(t *testing.T) {
	t.Parallel()
	w := splitWorld(t)
	nodes := w.cluster(10)
	s := newStage(t, "id")
	for _, c := range nodes {
		s.wrap(c)
	}
	s.oneRuns()
	small, large := nodes[:4], nodes[4:]
	w.split(small, large)
	for _, side := range [][]*gossip.Cluster{small, large} {
		s.await("one runs on each side", func() bool { return runningAmong(s, side) == 1 })
	}
	w.heal()
	left := s.oneRuns()
	w.see(10, nodes...)
	passRound(t, nodes[3:5]) // one of each side; all vote
	if !slices.ContainsFunc(large, func(c *gossip.Cluster) bool { return c.Node() == left }) {
		t.Errorf("the child of %s is left, want one of the larger side", left)
	}
	if s.oneRuns() != left {
		t.Errorf("the child has moved after the netsplit healed")
	}
	_, others := pick(nodes, left)
	if conflicts := slices.ContainsFunc(others, func(c *gossip.Cluster) bool { return isCause(s.endedBy(c.Node()), highlander.ErrConflict) }); !conflicts || len(s.endedBy(left)) > 0 {
		t.Errorf("the children ended with %v, want one ErrConflict on the smaller side", s.ends)
	}
}

// runningAmong returns how many of the nodes run the child; s is locked.
func runningAmong(s *stage, nodes []*gossip.Cluster) (count int) {
	for _, c := range nodes {
		if s.running[c.Node()] {
			count++
		}
	}
	return count
}
