package etcd

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// lookAt is a script: each line is when a question was sent, when its answer came,
// and how many seconds were left.
type lookAt struct {
	sent, received time.Duration
	left           int64
}

const ms = time.Millisecond

func TestSighting(t *testing.T) {
	for _, test := range []struct {
		name   string
		ttl    time.Duration
		looks  []lookAt
		latest time.Duration // zero: not final
	}{
		{"nothing was seen", 2 * time.Second, nil, 0},
		{"a renewed lease", 2 * time.Second, []lookAt{{0, 10 * ms, 1}, {500 * ms, 510 * ms, 1}, {1000 * ms, 1010 * ms, 1}}, 0},
		{"it runs out", 2 * time.Second, []lookAt{{0, 10 * ms, 1}, {600 * ms, 610 * ms, 0}, {1200 * ms, 1210 * ms, 0}}, 1610 * ms},
		{"an answer that is late says less", 2 * time.Second, []lookAt{{0, 400 * ms, 0}, {850 * ms, 860 * ms, 0}}, 0},
		{"looks too far apart: it may have been renewed", 2 * time.Second, []lookAt{{0, 10 * ms, 0}, {1500 * ms, 1510 * ms, 0}}, 0},
		{"it is renewed in the last second", 2 * time.Second, []lookAt{{0, 10 * ms, 0}, {300 * ms, 310 * ms, 1}, {700 * ms, 710 * ms, 1}}, 0},
		{"it is gone before anything was certain", 2 * time.Second, []lookAt{{0, 10 * ms, 0}, {300 * ms, 310 * ms, -1}, {700 * ms, 710 * ms, -1}}, 0},
		{"what is final stays so", 2 * time.Second, []lookAt{{0, 10 * ms, 0}, {600 * ms, 610 * ms, 0}, {700 * ms, 710 * ms, 0}, {800 * ms, 810 * ms, -1}}, 1010 * ms},
		{"it has run out and is not gone yet", 2 * time.Second, []lookAt{{0, 10 * ms, 0}, {600 * ms, 610 * ms, 0}, {1950 * ms, 1960 * ms, 0}}, 1010 * ms},
		{"it is there for longer than that", 2 * time.Second, []lookAt{{0, 10 * ms, 0}, {600 * ms, 610 * ms, 0}, {2050 * ms, 2060 * ms, 0}}, 0},
		{"what is final is taken back when more is left", 12 * time.Second, []lookAt{{0, 10 * ms, 1}, {300 * ms, 310 * ms, 9}, {600 * ms, 610 * ms, 9}}, 0},
		{"when only a little more is left, too", 12 * time.Second, []lookAt{{0, 10 * ms, 1}, {1200 * ms, 1210 * ms, 1}}, 3210 * ms},
		{"a new leader that does not count yet", 12 * time.Second, []lookAt{{0, 10 * ms, math.MaxInt64 / int64(time.Second)}}, 0},
		{"a long lease, within its last quarter", 12 * time.Second, []lookAt{{0, 10 * ms, 1}}, 2010 * ms},
		{"within it by the answer, not by the question", 4 * time.Second, []lookAt{{0, 10 * ms, 0}}, 0},
		{"a long lease, before that", 12 * time.Second, []lookAt{{0, 10 * ms, 3}}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := sighting{ttl: test.ttl}
			for _, look := range test.looks {
				s.observe(look.sent, look.received, look.left)
			}
			if s.final != (test.latest != 0) || s.final && s.latest != test.latest {
				t.Errorf("final %v at %v, want %v", s.final, s.latest, test.latest)
			}
		})
	}
}

// Whatever becomes of a lease, what was seen of it is final only when its holder
// has stopped by then. The holder renews at random moments, accepts a renewal
// according to its rule, and by a clock that is slow; the network delays
// everything; somebody may revoke the lease at any moment.
func TestHolderHasStoppedWhenSightingIsFinal(t *testing.T) {
	finals := 0
	for seed := range uint64(20_000) {
		r := rand.New(rand.NewPCG(seed, 1))
		ttl := time.Duration(1+r.IntN(15)) * time.Second
		delay := func() time.Duration { return random(r, ttl/20) }
		slow := func(d time.Duration) time.Duration { return d * 99 / 100 } // by the holder's clock

		// The holder: when each renewal was sent, what the server did, and until
		// when its child runs.
		type renewal struct{ at, ends time.Duration }
		var server []renewal
		sent := time.Duration(0)
		stops := time.Duration(0)
		for next := time.Duration(0); ; {
			served := next + delay()
			answered := served + delay()
			if len(server) > 0 && slow(answered-sent) > acceptWithin(ttl) {
				server = append(server, renewal{served, served + ttl}) // it may reach the server all the same
				break
			}
			server = append(server, renewal{served, served + ttl})
			sent = next
			stops = sent + (ttl-ttl/50)*100/99
			next += random(r, ttl*9/10)
			if r.IntN(6) == 0 {
				break
			}
		}
		revoked := time.Duration(1 << 62)
		if r.IntN(2) == 0 {
			revoked = random(r, sent+ttl)
		}
		late := random(r, 900*time.Millisecond) // until the keys of a lease that has run out are gone
		left := func(at time.Duration) int64 {
			ends := time.Duration(-1)
			for _, renewal := range server {
				if renewal.at <= at && (ends < 0 || renewal.at < ends) {
					ends = renewal.ends
				}
			}
			if ends < 0 || at >= revoked || at >= ends+late {
				return -1
			}
			return int64((ends - at) / time.Second)
		}
		s := sighting{ttl: ttl}
		for at := random(r, ttl); at < sent+2*ttl && !s.final; {
			asked := at
			at += delay()
			seen := left(at)
			at += delay()
			s.observe(asked, at, seen)
			at += min(s.next(), ttl/2)
		}
		if s.final {
			finals++
			if s.latest < stops {
				t.Fatalf("seed %d: TTL %v: final at %v, but the child runs until %v", seed, ttl, s.latest, stops)
			}
		}
	}
	if finals < 5000 {
		t.Errorf("only %d of the sightings were final", finals)
	}
}

func random(r *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(r.Int64N(int64(most) + 1))
}
