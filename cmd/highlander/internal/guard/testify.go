//go:build unix

package guard

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	testifyFor   = 30 * time.Second // all of it, and
	hurryFor     = time.Second      // once the guard was asked to end
	answerWithin = 2 * time.Second  // one attempt
	firstPause   = 10 * time.Millisecond
	longestPause = time.Second
)

// What a guard keeps is bounded.
const (
	maxFrame = 4 << 10 // bytes
	maxPeers = 1024
)

// bounded returns c, or what can be kept of it.
func (c Certificate) bounded(log *slog.Logger) Certificate {
	switch {
	case len(c.Frame) > maxFrame:
		log.Error("the death certificate is too large for the guard: it will not testify", "bytes", len(c.Frame), "max", maxFrame)
		return Certificate{}
	case len(c.Peers) > maxPeers:
		log.Warn("there are more voters than the guard tells of a death", "voters", len(c.Peers), "max", maxPeers)
		c.Peers = c.Peers[:maxPeers]
	}
	return c
}

// testify tells the peers, and returns when all of them have acknowledged it or
// the time is up. A SIGTERM, with which supervisors end what is left of a
// service, cuts the time short.
func (c Certificate) testify(asked <-chan os.Signal) {
	ctx, cancel := context.WithTimeout(context.Background(), testifyFor)
	defer cancel()
	var telling, hurrying sync.WaitGroup
	hurrying.Go(func() {
		select {
		case <-asked:
			time.AfterFunc(hurryFor, cancel)
		case <-ctx.Done():
		}
	})
	for _, addr := range c.Peers {
		telling.Go(func() { c.tellUntilHeard(ctx, addr) })
	}
	telling.Wait()
	cancel()
	hurrying.Wait()
}

// tellUntilHeard goes on while a peer cannot be reached, or does not know yet
// whose certificate it is.
func (c Certificate) tellUntilHeard(ctx context.Context, addr string) {
	for pause := firstPause; c.tell(ctx, addr) != nil; pause = min(2*pause, longestPause) {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// tell returns an error unless the peer has acknowledged.
func (c Certificate) tell(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := conn.Write(c.Frame); err != nil {
		return err
	}
	var answer [1]byte
	_, err = io.ReadFull(conn, answer[:])
	return err
}

// letGo gives up what others may wait for the end of, the standard streams, and
// what they may want to have back, the working directory.
func letGo() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("let go of the standard streams: %w", err)
	}
	defer null.Close()
	for fd := range 3 {
		if err := unix.Dup2(int(null.Fd()), fd); err != nil {
			return fmt.Errorf("let go of the standard streams: %w", err)
		}
	}
	_ = os.Chdir("/")
	return nil
}
