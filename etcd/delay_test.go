package etcd_test

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// slowly returns the address of a proxy for a server whose answers it delays, all
// by the same time, until the test is over.
func slowly(t *testing.T, server string, delay time.Duration) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var group sync.WaitGroup
	over := make(chan struct{})
	t.Cleanup(func() {
		l.Close()
		close(over)
		group.Wait()
	})
	group.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", server)
			if err != nil {
				client.Close()
				continue
			}
			group.Go(func() {
				io.Copy(server, client)
				server.Close()
			})
			group.Go(func() { delayed(client, server, delay, over) })
			group.Go(func() {
				<-over
				client.Close()
				server.Close()
			})
		}
	})
	return l.Addr().String()
}

// chunk is what came at a time.
type chunk struct {
	data []byte
	at   time.Time
}

// delayed copies what comes from src to dst, later, and closes dst at the end.
func delayed(dst io.WriteCloser, src io.Reader, delay time.Duration, over <-chan struct{}) {
	defer dst.Close()
	chunks := make(chan chunk, 1000)
	go func() {
		defer close(chunks)
		for {
			buf := make([]byte, 32<<10)
			n, err := src.Read(buf)
			if err != nil {
				return
			}
			chunks <- chunk{buf[:n], time.Now()}
		}
	}()
	failed := false
	for c := range chunks {
		select {
		case <-time.After(time.Until(c.at.Add(delay))):
		case <-over:
		}
		if !failed {
			_, err := dst.Write(c.data)
			failed = err != nil // what comes is read all the same, to its end
		}
	}
}
