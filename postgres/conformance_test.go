package postgres_test

import (
	"testing"
	"time"

	"highlander"
	"highlander/highlandertest"
	"highlander/postgres"
)

func TestConformance(t *testing.T) {
	server := sharedServer(t)
	highlandertest.TestCluster(t, func(t *testing.T) highlandertest.Fixture {
		f := &fixture{newWorld(t, server, 2*time.Second)}
		return highlandertest.Fixture{Node: f.node, Waiting: f.waiting, Crash: f.crash, TTL: f.ttl}
	})
}

// fixture is a cluster for the conformance suite.
type fixture struct{ *world }

func (f *fixture) node(t *testing.T, name string) highlander.Cluster {
	return f.open(f.server.URL(), name)
}

func (f *fixture) waiting(t *testing.T, id string) int {
	return f.admin("select count(*) from $schema.waiters where id = $1", id)
}

func (f *fixture) crash(t *testing.T, c highlander.Cluster) { c.(*postgres.Cluster).Crash() }
