package main

import (
	"context"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"highlander/kubernetes/kubernetestest"
	"highlander/postgres/postgrestest"
)

func TestPollingHandsOver(t *testing.T) {
	postgrestest.Need(t)
	t.Parallel()
	handsOver(t, candidacy{Peer: polling, URL: startServer(t, "postgres")}, (*contest).graceful, (*contest).killed)
}

func TestElectionHandsOver(t *testing.T) {
	t.Parallel()
	handsOver(t, candidacy{Peer: election, URL: startServer(t, "etcd"), TTL: 2 * time.Second}, (*contest).graceful, (*contest).killed)
}

func TestLeaderElectionHandsOver(t *testing.T) {
	kubernetestest.Need(t)
	t.Parallel()
	of := candidacy{Peer: leaderElection, URL: startServer(t, "kubernetes")}
	handsOver(t, of, (*contest).graceful, (*contest).graceful) // not killed, which takes 16 s
	of.ID = testID
	if err := deleteLease(of); err != nil {
		t.Fatal(err)
	}
	leases, err := leasesOf(of)
	if err != nil {
		t.Fatal(err)
	}
	left, err := leases.List(t.Context(), metav1.ListOptions{})
	if err != nil || len(left.Items) > 0 {
		t.Errorf("left behind: %v, %v", left.Items, err)
	}
}

func startServer(t *testing.T, engine string) (url string) {
	t.Helper()
	s, err := servers[engine]()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Errorf("close the server: %v", err)
		}
	})
	return s.url
}

const testID = "bench-test"

// handsOver makes rounds of measurements and expects each to end with another
// leader.
func handsOver(t *testing.T, of candidacy, rounds ...func(*contest, context.Context) (time.Duration, error)) {
	t.Helper()
	of.ID = testID
	c, err := openContest(t.Context(), of)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	for i, round := range rounds {
		var before *process
		took, err := c.round(t.Context(), 10*time.Millisecond, func(c *contest, ctx context.Context) (time.Duration, error) {
			before = c.elected()
			return round(c, ctx)
		})
		if err != nil {
			t.Fatalf("round %d: %v", i+1, err)
		}
		if took <= 0 || c.elected() == before || c.elected() == nil {
			t.Errorf("round %d took %v and went from %v to %v", i+1, took, before, c.elected())
		}
	}
}

// A peer that elects two at once has no figures to compare with.
func TestTwoLeadersAtOnceEndTheContest(t *testing.T) {
	first, second := &process{name: "first"}, &process{name: "second"}
	c := &contest{procs: []*process{first, second}}
	if err := c.take(processEvent{from: first, event: event{Event: evStarted, At: 1}}); err != nil {
		t.Fatal(err)
	}
	err := c.take(processEvent{from: second, event: event{Event: evStarted, At: 2}})
	if err == nil || !strings.Contains(err.Error(), "second was elected while first was") {
		t.Errorf("got the error %v", err)
	}
}

func TestAContestantSaysWhyItCannotTakePart(t *testing.T) {
	t.Parallel()
	_, err := openContest(t.Context(), candidacy{Peer: polling, URL: "postgres://127.0.0.1:1/x?sslmode=maybe"})
	if err == nil || !strings.Contains(err.Error(), "sslmode") {
		t.Errorf("got the error %v", err)
	}
}
