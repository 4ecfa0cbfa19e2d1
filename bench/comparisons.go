package main

import (
	"context"
	"time"
)

// comparison is a measure of highlander, and of what users would pick instead.
type comparison struct {
	engine string
	name   string        // as in highlander bench --only
	what   string        // what is measured, and under which conditions
	params []string      // of highlander's URL: key, value
	limit  time.Duration // what the median of highlander has to keep to
	slow   bool          // rounds / slowestShare
	rivals []rival
}

// rival is a peer in a comparison.
type rival struct {
	peer  string
	what  string        // the conditions, if they are others
	ttl   time.Duration // zero: its default
	rest  func(peerKind) time.Duration
	round func(*contest, context.Context) (time.Duration, error)
}

func graceful(peer, what string, ttl time.Duration) rival {
	return rival{peer: peer, what: what, ttl: ttl, rest: func(p peerKind) time.Duration { return p.rest }, round: (*contest).graceful}
}

func killed(peer, what string, ttl time.Duration) rival {
	return rival{peer: peer, what: what, ttl: ttl, rest: func(p peerKind) time.Duration { return p.period }, round: (*contest).killed}
}

// comparisons are all that there are, in the order in which they are made and
// printed. No peer starts many ids on one session, so there is none for that.
func comparisons() []comparison {
	const sec = time.Second
	return []comparison{
		{engine: "postgres", name: "graceful", what: "graceful hand-over", limit: 5 * time.Millisecond,
			rivals: []rival{graceful(polling, "every 300 ms", 0)}},
		{engine: "postgres", name: "kill", what: "kill -9", limit: 15 * time.Millisecond,
			rivals: []rival{killed(polling, "every 300 ms", 0)}},
		{engine: "postgres", name: "1000", what: "1,000 ids started", limit: sec},

		{engine: "etcd", name: "graceful", what: "graceful hand-over", limit: 3 * time.Millisecond,
			rivals: []rival{graceful(election, "", electionTTL)}},
		{engine: "etcd", name: "kill", what: "kill -9, TTL 2 s", params: []string{"ttl", "2s"}, limit: 2500 * time.Millisecond, slow: true,
			rivals: []rival{killed(election, "TTL 5 s", electionTTL), killed(election, "TTL 2 s", 2*sec)}},
		{engine: "etcd", name: "1000", what: "1,000 ids started", limit: sec},

		{engine: "kubernetes", name: "graceful", what: "graceful hand-over", limit: 50 * time.Millisecond,
			rivals: []rival{graceful(leaderElection, "ReleaseOnCancel", 0)}},
		{engine: "kubernetes", name: "kill", what: "kill -9, lease 15 s", params: []string{"ttl", "15s"}, limit: 15500 * time.Millisecond, slow: true,
			rivals: []rival{killed(leaderElection, "lease 15 s", 0)}},
		{engine: "kubernetes", name: "100", what: "100 ids started", limit: sec},
	}
}
