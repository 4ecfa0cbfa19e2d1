package etcd

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// A server that hangs does not hold up who gives up: neither the one who is
// exchanging the password for a token, nor the one who waits for that.
func TestDialingEndsWithTheContext(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	dialing := make(chan struct{})
	c := newConnection(nil, func(ctx context.Context) (*clientv3.Client, error) {
		close(dialing)
		return dial(ctx, clientv3.Config{Endpoints: []string{silent.Addr().String()}, Username: "user", Password: "secret", DialTimeout: time.Hour, Logger: zap.NewNop()})
	})
	enough := errors.New("enough")
	first, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := c.get(first)
		done <- err
	}()
	<-dialing
	second, cancelSecond := context.WithCancelCause(t.Context())
	cancelSecond(enough)
	if _, err := c.get(second); !errors.Is(err, enough) {
		t.Errorf("who waits for the other: %v", err)
	}
	cancel(enough)
	if err := <-done; !errors.Is(err, enough) {
		t.Errorf("who dials: %v", err)
	}
	if err := c.close(); err != nil {
		t.Error(err)
	}
}
