package highlander_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"highlander"
	"highlander/highlandertest"
)

func TestRunRunsOnceReleasesAndReturnsTheErrorItself(t *testing.T) {
	for _, want := range []error{nil, errBoom} {
		synctest.Test(t, func(t *testing.T) {
			cluster := highlandertest.New()
			runs := 0
			fn := func(context.Context) error { runs++; return want }
			if err := highlander.Run(t.Context(), cluster.Node("a"), "migrate", fn); err != want {
				t.Errorf("Run returned %v, want %v", err, want)
			}
			if runs != 1 {
				t.Errorf("fn ran %d times, want once", runs)
			}
			if _, err := cluster.Node("b").Lookup(t.Context(), "migrate"); !errors.Is(err, highlander.ErrNotHeld) {
				t.Errorf("after Run, Lookup returned %v, want ErrNotHeld", err)
			}
		})
	}
}

func TestRunWithTheSameIDRunsOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := highlandertest.New()
		running, runs := 0, 0
		results := make(chan error)
		for _, name := range []string{"a", "b", "c", "c"} {
			fn := func(context.Context) error {
				if running++; running > 1 {
					t.Error("two at once")
				}
				synctest.Wait()
				running--
				runs++
				return nil
			}
			go func() { results <- highlander.Run(t.Context(), cluster.Node(name), "migrate", fn) }()
		}
		for range 4 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if runs != 4 {
			t.Errorf("%d runs, want 4", runs)
		}
	})
}

func TestRunThatWasInterruptedByALossRunsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := highlandertest.New()
		node := cluster.Node("a")
		var causes []error
		fn := func(ctx context.Context) error {
			if len(causes) == 2 {
				return nil
			}
			cluster.Expire("migrate")
			<-ctx.Done()
			causes = append(causes, context.Cause(ctx))
			if len(causes) == 1 {
				return nil // as if it had completed: nobody can tell
			}
			return ctx.Err()
		}
		if err := highlander.Run(t.Context(), node, "migrate", fn); err != nil {
			t.Errorf("Run returned %v", err)
		}
		if want := []error{highlander.ErrLeaseLost, highlander.ErrLeaseLost}; !slices.Equal(causes, want) {
			t.Errorf("causes are %v, want %v", causes, want)
		}
	})
}

func TestRunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		fn := func(childCtx context.Context) error {
			cancel()
			<-childCtx.Done()
			return errBoom
		}
		err := highlander.Run(ctx, highlandertest.New().Node("a"), "migrate", fn)
		mustMatch(t, err, context.Canceled)
	})
}

func TestRunReportsAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var panicked *highlander.PanicError
		err := highlander.Run(t.Context(), highlandertest.New().Node("a"), "migrate", panics)
		if !errors.As(err, &panicked) || panicked.Value != "boom" {
			t.Errorf("Run returned %v, want a PanicError with boom", err)
		}
	})
}

func TestRunLeavesTheOptionsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := make([]highlander.Option, 0, 1)
		fn := func(context.Context) error { return nil }
		if err := highlander.Run(t.Context(), highlandertest.New().Node("a"), "migrate", fn, opts...); err != nil {
			t.Error(err)
		}
		if opts[:1][0] != nil {
			t.Error("Run wrote into the slice of its caller")
		}
	})
}
