package lease_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"highlander/internal/lease"
)

// caller is a call of Take in a goroutine of its own.
type caller struct {
	cancel context.CancelCauseFunc
	done   chan struct{}
	end    func()
	err    error
}

func take(t *testing.T, turns *lease.Turns, id string) *caller {
	ctx, cancel := context.WithCancelCause(t.Context())
	c := &caller{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.end, c.err = turns.Take(ctx, id)
	}()
	synctest.Wait()
	return c
}

// having returns which of the callers have their turn.
func having(callers []*caller) (numbers []int) {
	synctest.Wait()
	for i, c := range callers {
		select {
		case <-c.done:
			if c.err == nil {
				numbers = append(numbers, i)
			}
		default:
		}
	}
	return numbers
}

func TestTurnsAreFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turns lease.Turns
		other := take(t, &turns, "other")
		var callers []*caller
		for range 4 {
			callers = append(callers, take(t, &turns, "id"))
		}
		enough := errors.New("enough")
		callers[2].cancel(enough)
		for i, want := range [][]int{{0}, {0, 1}, nil, {0, 1, 3}} {
			if i == 2 {
				continue // it has left the queue
			}
			if got := having(callers); !slices.Equal(got, want) {
				t.Fatalf("%v had their turn, want %v", got, want)
			}
			callers[i].end()
			callers[i].end()
		}
		if !errors.Is(callers[2].err, enough) {
			t.Errorf("the caller who left got %v, want the cause of its context", callers[2].err)
		}
		other.end()
	})
}

func TestTakeWithAnEndedContext(t *testing.T) {
	var turns lease.Turns
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if _, err := turns.Take(ctx, "id"); !errors.Is(err, enough) {
		t.Errorf("Take: %v, want the cause of the context", err)
	}
	if _, err := turns.Take(t.Context(), "id"); err != nil {
		t.Error(err)
	}
}

// Whoever leaves the queue at the moment its turn comes passes it on.
func TestTurnIsPassedOnByWhoeverLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turns lease.Turns
		for range 200 {
			holder, leaver, next := take(t, &turns, "id"), take(t, &turns, "id"), take(t, &turns, "id")
			go holder.end()
			leaver.cancel(context.Canceled)
			<-leaver.done
			if leaver.err == nil {
				leaver.end()
			}
			<-next.done
			next.end()
		}
	})
}
