package main

import (
	"context"
	"time"
)

// benchPlan is how bench measures a cluster.
type benchPlan struct {
	kind    benchKind
	own     bool      // the nodes form a cluster of their own
	mode    fleetMode // of that one
	id      string    // what the nodes compete for, or the beginning of it
	space   string    // of the nodes' own, on the user's server
	cluster string    // for the report; empty: the user's URL

	slowKill      bool // a kill waits for the end of a lease
	idleIDs       int
	restAfterKill time.Duration
	restAtStart   time.Duration // until all nodes of a fleet are connected
	patience      time.Duration // in addition to stepTimeout

	cleanUp func(context.Context) error // if there is something to
}

// benchKind is a kind of cluster that a measurement may be for.
type benchKind uint8

const (
	benchAvailable benchKind = 1 << iota
	benchQuorum

	benchServer     // clusters on servers
	benchKubernetes // with one object an id

	benchGossip  = benchAvailable | benchQuorum
	benchServers = benchServer | benchKubernetes
	benchAll     = benchGossip | benchServers
)

// other returns the other mode of the embedded cluster.
func (k benchKind) other() benchKind {
	switch k {
	case benchAvailable:
		return benchQuorum
	case benchQuorum:
		return benchAvailable
	}
	return 0
}
