package etcd_test

import (
	"testing"

	"highlander/highlandertest"
)

func TestConformance(t *testing.T) {
	server := startServer(t, members)
	highlandertest.TestCluster(t, func(t *testing.T) highlandertest.Fixture {
		f := newFixture(t, server)
		return highlandertest.Fixture{Node: f.node, Waiting: f.waiting, Crash: f.crash, TTL: f.ttl, Cut: f.cut}
	})
}
