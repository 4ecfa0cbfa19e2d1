package highlandertest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"highlander"
)

// manyIDs has every node acquire every id. Each id must go to one of them, and
// from one to the next, until all have had it.
func manyIDs(s *script) {
	count := s.fixture.ManyIDs
	switch {
	case count > 0:
	case testing.Short():
		count = 100
	default:
		count = 1000
	}
	arrived := make(chan *waiter, count*len(s.nodes))
	for i := range count {
		id := s.id(fmt.Sprintf("id%04d", i))
		for j := range s.nodes {
			w := s.start(s.nodes[(i+j)%len(s.nodes)], id)
			go func() {
				<-w.done
				arrived <- w
			}()
		}
	}
	for round := range s.nodes {
		holders := map[string]*lease{}
		for len(holders) < count {
			l := s.next(arrived, fmt.Sprintf("round %d: one more of %d ids is held, after %d", round+1, count, len(holders)))
			holders[l.id] = l // a second one of the same id is an error to the referee
		}
		s.seeAll(holders)
		var leases []*lease
		for _, l := range holders {
			s.isHeld(l)
			s.referee.leave(l)
			leases = append(leases, l)
		}
		s.together(fmt.Sprintf("round %d: Release of %d leases", round+1, count), count, func(ctx context.Context, i int) error {
			return leases[i].Release(ctx)
		})
	}
}

// next takes the next lease.
func (s *script) next(arrived <-chan *waiter, what string) *lease {
	s.t.Helper()
	select {
	case w := <-arrived:
		return w.lease()
	case <-time.After(patience):
		s.stuck("waited in vain: %s", what)
		return nil
	}
}

// seeAll waits until every node sees these holders.
func (s *script) seeAll(holders map[string]*lease) {
	s.t.Helper()
	for _, viewer := range s.nodes {
		s.eventually(fmt.Sprintf("%s.Holders has %d ids", viewer.Node(), len(holders)), func() error {
			all, err := s.holders(viewer)
			right := 0
			for _, h := range all {
				if l := holders[h.ID]; l != nil && l.node.Node() == h.Node && l.Token() == h.Token {
					right++
				}
			}
			if err == nil && right < len(holders) {
				err = fmt.Errorf("%d of %d are right", right, len(holders))
			}
			return err
		})
	}
}

// hammer acquires and releases a few ids from many goroutines on all nodes, and
// now and then ends a context at some point of the way.
func hammer(s *script) {
	const phases, workers, rounds, ids = 6, 12, 8, 3
	for phase := range phases {
		s.together(fmt.Sprintf("phase %d of %d workers", phase+1, workers), workers, func(ctx context.Context, worker int) error {
			random := rand.New(rand.NewPCG(uint64(phase), uint64(worker)))
			node := s.nodes[worker%len(s.nodes)]
			for range rounds {
				if err := s.hammerOnce(ctx, random, node, s.id(fmt.Sprint(random.IntN(ids)))); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// hammerOnce is one round of a worker.
func (s *script) hammerOnce(ctx context.Context, random *rand.Rand, node highlander.Cluster, id string) error {
	wait, enough := context.WithCancelCause(ctx)
	defer enough(nil)
	hasty := random.IntN(4) == 0
	if hasty {
		yields := random.IntN(200)
		go func() {
			for range yields {
				runtime.Gosched()
			}
			enough(errEnough)
		}()
	}
	l, err := s.acquireNow(wait, node, id, highlander.AcquireOptions{})
	if hasty && errors.Is(err, errEnough) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s.Acquire(%q): %w", node.Node(), id, err)
	}
	for range random.IntN(50) {
		runtime.Gosched() // with the lease held, others get a chance to break in
	}
	s.referee.leave(l)
	if err := l.Release(ctx); err != nil {
		return fmt.Errorf("release of the %v: %w", l, err)
	}
	return nil
}
