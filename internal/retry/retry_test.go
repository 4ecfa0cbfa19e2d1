package retry_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"highlander/internal/retry"
)

func TestPausesGrowUpToTheLongest(t *testing.T) {
	b := retry.Backoff{First: 20 * time.Millisecond, Max: 100 * time.Millisecond}
	for range 2 {
		for _, most := range []time.Duration{20, 40, 80, 100, 100} {
			most *= time.Millisecond
			if pause := b.Next(); pause < most/2 || pause > most {
				t.Errorf("a pause of %v, want %v to %v", pause, most/2, most)
			}
		}
		b.Reset()
	}
}

func TestTheFirstPauseIsNoLongerThanTheLongest(t *testing.T) {
	b := retry.Backoff{First: time.Second, Max: time.Millisecond}
	if pause := b.Next(); pause > time.Millisecond {
		t.Errorf("a pause of %v, want 1ms at most", pause)
	}
}

func TestPausesDiffer(t *testing.T) {
	var short, long int
	for range 1000 {
		switch d := retry.Jitter(time.Second); {
		case d < time.Second/2 || d > time.Second:
			t.Fatalf("%v, want half a second to a whole one", d)
		case d < 600*time.Millisecond:
			short++
		case d > 900*time.Millisecond:
			long++
		}
	}
	if short == 0 || long == 0 {
		t.Errorf("of 1000, %d are short and %d are long", short, long)
	}
	for _, d := range []time.Duration{0, 1} {
		if got := retry.Jitter(d); got > d {
			t.Errorf("%d ns became %d", d, got)
		}
	}
}

func TestSleepEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		if !retry.Sleep(ctx, 2*time.Second) || time.Since(began) != 2*time.Second {
			t.Errorf("it has not slept for 2 s, but %v", time.Since(began))
		}
		if retry.Sleep(ctx, time.Hour) || time.Since(began) != 3*time.Second {
			t.Errorf("it has slept for %v, though the context has ended after 3 s", time.Since(began))
		}
		b := retry.Backoff{First: time.Hour, Max: time.Hour}
		if b.Sleep(ctx) || time.Since(began) != 3*time.Second {
			t.Errorf("it has slept for %v more with a context that has ended", time.Since(began)-3*time.Second)
		}
	})
}

func TestBackoffSleepsForTheNextPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, began := retry.Backoff{First: time.Second, Max: time.Minute}, time.Now()
		for range 3 {
			if !b.Sleep(t.Context()) {
				t.Fatal("it was cut short")
			}
		}
		if took := time.Since(began); took < 3500*time.Millisecond || took > 7*time.Second {
			t.Errorf("three pauses took %v, want half of 7s at least", took)
		}
	})
}

func TestAnOutageIsOneLineAtItsStartAndOneAtItsEnd(t *testing.T) {
	var text bytes.Buffer
	now := time.Hour
	withoutTime := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	log := slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: withoutTime}))
	o := retry.NewOutage(log, func() time.Duration { return now }, "the server")
	o.Works()
	for _, length := range []time.Duration{3 * time.Second, 1234 * time.Millisecond} {
		o.Fails(errors.New("refused"))
		now += length
		o.Fails(errors.New("no answer"))
		o.Works()
		o.Works()
		now += time.Hour
	}
	const want = `level=WARN msg="the server cannot be used; trying again" error=refused
level=DEBUG msg="the server: still no success" error="no answer"
level=INFO msg="the server can be used again" after=3s
level=WARN msg="the server cannot be used; trying again" error=refused
level=DEBUG msg="the server: still no success" error="no answer"
level=INFO msg="the server can be used again" after=1.23s
`
	if got := text.String(); got != want {
		t.Errorf("it logs\n%s\nwant\n%s", got, want)
	}
}
