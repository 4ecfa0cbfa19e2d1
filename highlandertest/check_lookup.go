package highlandertest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"highlander"
)

func lookupShowsHolder(s *script) {
	id := s.id("id")
	s.seeNobody(id)
	for i, meta := range []string{"", "127.0.0.1:80", "größe '\"%s\\ 🗡", strings.Repeat("m", highlander.MaxMetaLen)} {
		node := s.nodes[i%3]
		l := s.acquireWith(node, id, highlander.AcquireOptions{Meta: meta})
		for _, viewer := range s.nodes {
			h := s.seeHolder(id, node, viewer)
			if h.Since.IsZero() {
				s.t.Errorf("%s sees a holder without Since: %+v", viewer.Node(), h)
			}
			h.Since = time.Time{}
			if want := (highlander.Holder{ID: id, Node: node.Node(), Meta: meta, Token: l.Token()}); h != want {
				s.t.Errorf("%s sees %+v, want %+v", viewer.Node(), h, want)
			}
		}
		s.release(l)
		s.seeNobody(id)
	}
}

func lookupFollows(s *script) {
	id := s.id("id")
	l := s.acquireWith(s.nodes[0], id, highlander.AcquireOptions{Meta: "first"})
	next := s.startWith(s.nodes[1], id, highlander.AcquireOptions{Meta: "second"})
	s.queued(id, 1)
	if h := s.seeHolder(id, s.nodes[0], s.nodes...); h.Meta != "first" {
		s.t.Errorf("with somebody waiting, the holder is %+v, want Meta first", h)
	}
	s.release(l)
	l = next.lease()
	if h := s.seeHolder(id, s.nodes[1], s.nodes...); h.Meta != "second" || h.Token != l.Token() {
		s.t.Errorf("after the hand-over, the holder is %+v, want Meta second and token %d", h, l.Token())
	}
}

func holdersSorted(s *script) {
	var leases []*lease
	var want []string
	for i, name := range []string{"m", "z", "a", "B", "ä", "10", "9", "z/z", "z z"} {
		l := s.acquire(s.nodes[i%3], s.id(name))
		leases = append(leases, l)
		want = append(want, fmt.Sprintf("%s at %s", l.id, l.node.Node()))
	}
	slices.SortFunc(want, strings.Compare)
	s.seeHolders(want)
	for _, l := range leases {
		s.release(l)
	}
	s.seeHolders(nil)
}

// seeHolders waits until every node has these holders of ids of this check, and
// all it has in order.
func (s *script) seeHolders(want []string) {
	s.t.Helper()
	for _, viewer := range s.nodes {
		s.eventually(viewer.Node()+".Holders is complete", func() error {
			holders, err := s.holders(viewer)
			if err != nil {
				return err
			}
			if !slices.IsSortedFunc(holders, func(a, b highlander.Holder) int { return strings.Compare(a.ID, b.ID) }) {
				s.t.Fatalf("%s.Holders is not sorted by ID: %+v", viewer.Node(), holders)
			}
			var got []string
			for _, h := range holders {
				if strings.HasPrefix(h.ID, s.id("")) {
					got = append(got, fmt.Sprintf("%s at %s", h.ID, h.Node))
				}
			}
			if !slices.Equal(got, want) {
				return fmt.Errorf("it has %q, want %q", got, want)
			}
			return nil
		})
	}
}

func nodeNamesUnique(s *script) {
	seen := map[string]bool{}
	for _, node := range s.nodes {
		if node.Node() == "" || seen[node.Node()] {
			s.t.Errorf("node name %q is empty or taken", node.Node())
		}
		seen[node.Node()] = true
	}
}
