package postgres

import (
	"errors"
	"testing"
	"time"
)

func TestDoubtOfDeath(t *testing.T) {
	base := ends{abandoned: 10, fatal: 10, killed: 10, reset: time.Unix(1, 0)}
	for _, test := range []struct {
		name  string
		later ends
		dead  bool
	}{
		{"both were abandoned", ends{12, 10, 10, base.reset}, true},
		{"one failed as it wrote", ends{11, 11, 10, base.reset}, true},
		{"others were abandoned as well", ends{15, 10, 10, base.reset}, true},
		{"nothing was counted", base, false},
		{"one said goodbye", ends{11, 10, 10, base.reset}, false},
		{"both failed by an error", ends{10, 12, 10, base.reset}, false},
		{"an administrator ended one", ends{12, 10, 11, base.reset}, false},
		{"an administrator ended both", ends{10, 10, 12, base.reset}, false},
		{"the statistics were reset", ends{12, 10, 10, time.Unix(2, 0)}, false},
	} {
		if doubt := base.doubt(test.later); (doubt == nil) != test.dead {
			t.Errorf("%s: dead is %v; want %v (%v)", test.name, doubt == nil, test.dead, doubt)
		}
	}
}

func TestNotificationMayHaveProvokedAnEnd(t *testing.T) {
	const end = time.Hour
	for noted, want := range map[time.Duration]bool{
		0:                        false, // there was none
		end - time.Minute:        false,
		end - answeredWithin:     false,
		end - answeredWithin + 1: true,
		end:                      true,
		end + 5*time.Millisecond: true, // it was read after the end, and may have been sent before
	} {
		if got := provoked(noted, end); got != want {
			t.Errorf("a notification %v before the end: %v; want %v", end-noted, got, want)
		}
	}
}

// The look that comes right after a death must not forget what proves it.
func TestLastLookAtALivingPeerIsRemembered(t *testing.T) {
	then, now := ends{abandoned: 1}, ends{abandoned: 3}
	alive := &peer{alive: true, ends: then}
	for _, test := range []struct {
		name       string
		known      *peer
		work, ring bool
		want       peer
	}{
		{"both are there", alive, true, true, peer{alive: true, ends: now}},
		{"both are gone", alive, false, false, peer{alive: true, ends: then}},
		{"the working one is gone", alive, false, true, peer{alive: true, ends: then}},
		{"the ring is gone, and the process goes on", alive, true, false, peer{}},
		{"both are gone, after the ring", &peer{}, false, false, peer{}},
		{"nobody has known it", nil, false, false, peer{}},
	} {
		var p peer
		if p.witness(test.known, test.work, test.ring, now); p != test.want {
			t.Errorf("%s: alive is %v, with %v; want %v, with %v", test.name, p.alive, p.ends, test.want.alive, test.want.ends)
		}
	}
}

func TestRingIsLeftToReportAnEnd(t *testing.T) {
	n := newNode(&config{}, func() time.Duration { return time.Hour })
	s := &session{c: n.c, number: 9, turned: 7, turn: make(chan int64, 1), ringEnded: make(chan struct{})}
	close(s.ringEnded)
	other := n.c.objects(5)
	seen := sight{peers: []peer{{session: 7}, {session: 5}}, locks: []lockHeld{{object: other[0]}, {object: other[1]}}}
	if err := n.see(t.Context(), s, seen); err != nil {
		t.Fatal(err)
	}
	if s.turned != 7 || len(s.turn) != 0 {
		t.Errorf("the ring is turned to session %d; want 7 until its end was reported", s.turned)
	}
}

func TestWhoIsBeforeInTheRing(t *testing.T) {
	for _, test := range []struct {
		sessions []int64
		one      int64
		want     int64
	}{
		{nil, 5, 0},
		{[]int64{3}, 5, 3},
		{[]int64{8}, 5, 8},
		{[]int64{8, 3, 4}, 5, 4},
		{[]int64{8, 9, 6}, 5, 9},
	} {
		if got := before(test.sessions, test.one); got != test.want {
			t.Errorf("before %d in %v is %d; want %d", test.one, test.sessions, got, test.want)
		}
	}
}

// After a crash the server may have forgotten renewals that it had confirmed, and
// after a fail-over it is another one. So the time that a session was seen without a
// renewal counts within one session of the observer only.
func TestWhatWasSeenInAnotherSessionDoesNotCount(t *testing.T) {
	n := newNode(&config{}, func() time.Duration { return time.Hour })
	n.peers = map[int64]*peer{7: {session: 7, beat: 3, ttl: time.Second, seen: time.Minute}}
	n.newServer()
	s := &session{c: n.c, number: 1}
	if err := n.see(t.Context(), s, sight{peers: []peer{{session: 7, beat: 3, ttl: time.Second}}}); err != nil {
		t.Fatal(err)
	}
	if at, want := n.peers[7].runsOut(), time.Hour+time.Second; at != want {
		t.Errorf("a session with an old beat runs out at %v; want %v, a TTL after it was seen first at this server", at, want)
	}
	later := func() time.Duration { return time.Hour + time.Minute }
	n.clock = later
	if err := n.see(t.Context(), s, sight{peers: []peer{{session: 7, beat: 3, ttl: time.Second}}}); err != nil {
		t.Fatal(err)
	}
	if at, want := n.peers[7].runsOut(), time.Hour+time.Second; at != want {
		t.Errorf("the same beat, seen again, runs out at %v; want %v", at, want)
	}
}

// Whoever changes a TTL by hand, and the newcomer who sees only that, must not make
// a child start beside another.
func TestTTLOfALeaseIsNeverLessThanIsKnown(t *testing.T) {
	const own, long = 4 * time.Second, 9 * time.Second
	n := newNode(&config{ttl: own}, func() time.Duration { return time.Hour })
	s := &session{c: n.c, number: 1}
	var m memory
	for _, test := range []struct {
		inRow, want time.Duration
	}{
		{millis(1), own},
		{millis(long.Milliseconds()), long},
		{millis(1), long},
		{millis(-1 << 63), long},
		{millis(1<<63 - 1), maxTTL},
		{millis(0), maxTTL},
	} {
		if err := n.see(t.Context(), s, sight{peers: []peer{{session: 7, beat: 3, ttl: test.inRow}}}); err != nil {
			t.Fatal(err)
		}
		if got := n.peers[7].ttl; got != test.want {
			t.Errorf("a session with a TTL of %v in its row: %v; want %v", test.inRow, got, test.want)
		}
		if m.see(row{token: 5, ttl: test.inRow}, n.clock(), own); m.ttl != test.want {
			t.Errorf("a lease with a TTL of %v in its row: %v; want %v", test.inRow, m.ttl, test.want)
		}
	}
	var unseen memory
	if unseen.vanish(n.clock(), own); unseen.ttl != own {
		t.Errorf("a lease whose row nobody has seen: %v; want %v", unseen.ttl, own)
	}
}

// A pooler that knows prepared statements may go over to pooling by transaction while
// we are connected.
func TestSessionOfAnotherIsSeen(t *testing.T) {
	wanted := state{pid: 7, locks: 3, leases: 2}
	for _, test := range []struct {
		name   string
		found  state
		pooler bool
		ours   bool
	}{
		{"our own", state{pid: 7, locks: 3, leases: 2}, false, true},
		{"our own, with a lock of somebody else's", state{pid: 7, locks: 4, leases: 2}, false, true},
		{"our own, with leases that have changed", state{pid: 7, locks: 3}, false, true},
		{"our own, without a lock", state{pid: 7, locks: 2, leases: 2}, false, false},
		{"another one", state{pid: 8, locks: 3, leases: 2}, true, false},
		{"another one, without locks", state{pid: 8, leases: 2}, true, false},
	} {
		err := test.found.notOurs(wanted)
		if (err == nil) != test.ours || errors.Is(err, errPooler) != test.pooler {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
