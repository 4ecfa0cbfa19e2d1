package etcd_test

import (
	"errors"
	"testing"

	"highlander"
	"highlander/etcd"
)

// A claim that wins while its node leaves is given up: without that the next one
// would wait for its TTL, which is more than this test does.
func TestCloseGivesUpWhatIsWonMeanwhile(t *testing.T) {
	t.Parallel()
	s, prefix := sharedServer(t), newPrefix()
	client, err := s.Client()
	must(t, err)
	defer client.Close()
	won, goOn := make(chan struct{}), make(chan struct{})
	log := when("the claim has won", func() { close(won); <-goOn })
	a := open(t, s.URL(), etcd.WithPrefix(prefix), etcd.WithTTL(10*patience), etcd.WithLogger(log), etcd.WithCloseTimeout(patience))
	acquired := make(chan error, 1)
	go func() {
		_, err := a.Acquire(t.Context(), "id", highlander.AcquireOptions{})
		acquired <- err
	}()
	receive(t, won, "the claim has won")

	next := make(chan highlander.Lease, 1)
	b := open(t, s.URL(), etcd.WithPrefix(prefix), etcd.WithTTL(10*patience))
	go func() { next <- acquire(t, b, "id") }()
	awaitKeys(t, client, prefix+"/claim/", "one waits", func(claims map[string]string) bool { return len(claims) == 2 })

	closed := make(chan error, 1)
	go func() { closed <- a.Close() }()
	awaitKeys(t, client, prefix+"/node/", "a node is gone", func(nodes map[string]string) bool { return len(nodes) == 1 })
	close(goOn)
	must(t, <-closed)
	if err := <-acquired; !errors.Is(err, highlander.ErrClosed) {
		t.Errorf("Acquire: %v", err)
	}
	if l := <-next; l != nil {
		held(t, l)
	}
}
