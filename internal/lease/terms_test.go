package lease_test

import (
	"strings"
	"testing"
	"time"

	"highlander"
	"highlander/internal/lease"
)

func TestDeadlineCountsFromTheSendingLessTwoPercent(t *testing.T) {
	terms := lease.Terms{TTL: 10 * time.Second, Every: 2 * time.Second}
	if got, want := terms.Until(time.Minute), time.Minute+9800*time.Millisecond; got != want {
		t.Errorf("Until is %v, want %v", got, want)
	}
}

func TestStopWithinMustFit(t *testing.T) {
	twelve := lease.Terms{TTL: 12 * time.Second, Every: 3 * time.Second}
	for _, test := range []struct {
		terms lease.Terms
		stop  time.Duration
		err   string
	}{
		{twelve, 5400 * time.Millisecond, ""},
		{twelve, 5660 * time.Millisecond, ""},
		{twelve, 5660*time.Millisecond + 1, "TTL 12s is too short to stop within 5.660000001s: less 240ms for clocks, 6s for two renewals and 100ms for a busy machine it leaves 5.66s; a TTL of at least 13s, or at most 5.66s to stop, is needed"},
		{lease.Terms{TTL: 2 * time.Second, Every: 500 * time.Millisecond}, 800 * time.Millisecond, ""}, // two fifths
		{lease.Terms{TTL: 2 * time.Second, Every: 500 * time.Millisecond}, 5 * time.Second, "a TTL of at least 11s, or at most 860ms to stop, is needed"},
	} {
		switch err := test.terms.CheckStopWithin(test.stop); {
		case test.err == "" && err != nil:
			t.Errorf("%+v, %v: %v", test.terms, test.stop, err)
		case test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)):
			t.Errorf("%+v, %v: error is %v, want %q in it", test.terms, test.stop, err, test.err)
		}
	}
}

func TestArgumentsOfAcquireAreChecked(t *testing.T) {
	terms := lease.Terms{TTL: 2 * time.Second, Every: 500 * time.Millisecond}
	for _, test := range []struct {
		id   string
		opts highlander.AcquireOptions
		err  string
	}{
		{"id", highlander.AcquireOptions{StopWithin: 800 * time.Millisecond}, ""},
		{"", highlander.AcquireOptions{}, "acquire: invalid id: it is empty; 1 to 255 bytes of UTF-8 are allowed"},
		{"id", highlander.AcquireOptions{Meta: strings.Repeat("m", 513)}, `acquire "id": AcquireOptions.Meta: it has 513 bytes; at most 512 are allowed`},
		{"id", highlander.AcquireOptions{StopWithin: -1}, `acquire "id": AcquireOptions.StopWithin is -1ns; it must not be negative`},
		{"id", highlander.AcquireOptions{StopWithin: time.Second}, `acquire "id": AcquireOptions.StopWithin: TTL 2s is too short to stop within 1s: ` +
			`less 40ms for clocks, 1s for two renewals and 100ms for a busy machine it leaves 860ms; a TTL of at least 3s, or at most 860ms to stop, is needed`},
	} {
		got := ""
		if err := terms.CheckAcquire(test.id, test.opts); err != nil {
			got = err.Error()
		}
		if got != test.err {
			t.Errorf("%q, %+v: error is %q, want %q", test.id, test.opts, got, test.err)
		}
	}
}

// What the error says is enough is enough.
func TestAdviceOnTheTTLFits(t *testing.T) {
	for ttl := time.Second; ttl <= 20*time.Second; ttl += 250 * time.Millisecond {
		for stop := 100 * time.Millisecond; stop < 2*time.Minute; stop += 777 * time.Millisecond {
			err := lease.Terms{TTL: ttl, Every: ttl / 4}.CheckStopWithin(stop)
			if err == nil {
				continue
			}
			_, advice, _ := strings.Cut(err.Error(), "a TTL of at least ")
			advised, parseErr := time.ParseDuration(advice[:strings.Index(advice, ",")])
			if parseErr != nil {
				t.Fatal(parseErr)
			}
			if err := (lease.Terms{TTL: advised, Every: advised / 4}).CheckStopWithin(stop); err != nil {
				t.Errorf("after the advice: %v", err)
			}
		}
	}
}
