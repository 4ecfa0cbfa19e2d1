package etcdtest_test

import (
	"context"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"highlander/etcd/etcdtest"
)

const patience = 30 * time.Second

func start(t *testing.T, members int, opts ...etcdtest.Option) (*etcdtest.Server, *clientv3.Client) {
	t.Helper()
	s, err := etcdtest.Start(members, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, connect(t, s)
}

func connect(t *testing.T, s *etcdtest.Server) *clientv3.Client {
	t.Helper()
	client, err := s.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// read returns the value of key, and asks until somebody answers.
func read(t *testing.T, client *clientv3.Client, key string) string {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		resp, err := client.Get(ctx, key)
		cancel()
		if err == nil && len(resp.Kvs) == 1 {
			return string(resp.Kvs[0].Value)
		}
		if time.Now().After(end) {
			t.Fatalf("key %q: %v, %v", key, resp, err)
		}
	}
}

func TestMembersKeepWhatTheyWereTold(t *testing.T) {
	s, client := start(t, 3)
	_, err := client.Put(t.Context(), "a", "1")
	must(t, err)

	leader, err := s.Leader()
	must(t, err)
	s.StopMember(leader)
	if got := read(t, client, "a"); got != "1" {
		t.Errorf("without the leader: %q", got)
	}
	must(t, s.StartMember(leader))

	must(t, s.Restart())
	if got := read(t, client, "a"); got != "1" {
		t.Errorf("after a restart of all: %q", got)
	}
}

func TestFrozenMembersDoNotAnswer(t *testing.T) {
	s, client := start(t, 1)
	_, err := client.Put(t.Context(), "a", "1")
	must(t, err)
	must(t, s.Freeze())
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if resp, err := client.Get(ctx, "a"); err == nil {
		t.Errorf("a frozen server answered %v", resp)
	}
	must(t, s.Thaw())
	read(t, client, "a")
}

func TestUsersMayOnlyDoWhatTheyAreAllowed(t *testing.T) {
	s, _ := start(t, 1)
	must(t, s.EnableAuth("/ours/", map[string]string{"user": "secret"}))
	client, err := clientv3.New(clientv3.Config{Endpoints: s.Endpoints(), Username: "user", Password: "secret", DialTimeout: patience})
	must(t, err)
	defer client.Close()
	if _, err := client.Put(t.Context(), "/ours/a", "1"); err != nil {
		t.Errorf("within the prefix: %v", err)
	}
	if _, err := client.Put(t.Context(), "/theirs", "1"); err == nil {
		t.Error("outside of the prefix a key was written")
	}
	must(t, s.Deny("user"))
	if _, err := client.Put(t.Context(), "/ours/a", "2"); err == nil {
		t.Error("without rights a key was written")
	}
	must(t, s.Allow("user"))
	if _, err := client.Put(t.Context(), "/ours/a", "3"); err != nil {
		t.Errorf("with rights again: %v", err)
	}
}

func TestWithTLS(t *testing.T) {
	s, client := start(t, 1, etcdtest.WithTLS())
	_, err := client.Put(t.Context(), "a", "1")
	must(t, err)
	must(t, s.Restart())
	read(t, client, "a")
}
