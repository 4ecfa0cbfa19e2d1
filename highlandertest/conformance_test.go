package highlandertest

import (
	"testing"

	"highlander"
)

// memory is the fixture of the in-memory cluster.
func memory(*testing.T) Fixture {
	c := New()
	return Fixture{
		Node:    func(_ *testing.T, name string) highlander.Cluster { return c.Node(name) },
		Waiting: func(_ *testing.T, id string) int { return c.waiting(id) },
		Crash:   func(_ *testing.T, n highlander.Cluster) { c.Crash(n.(*node).base) },
	}
}

// waiting counts the claims in the queue of an id.
func (c *Cluster) waiting(id string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	count := 0
	if ct := c.contests[id]; ct != nil {
		for _, cl := range ct.claims {
			if cl.token == 0 {
				count++
			}
		}
	}
	return count
}

func TestConformance(t *testing.T) { TestCluster(t, memory) }
