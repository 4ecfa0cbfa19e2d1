package postgres_test

import (
	"net"
	"strings"
	"testing"
	"time"
)

// A primary that hangs is the first of two hosts, and takes connections still.
func TestSilentHostDoesNotKeepFromTheOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharedServer(t), 10*time.Second)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.after = append(w.after, func() { _ = silent.Close() })
	hosts := silent.Addr().String() + "," + w.server.Addr()
	url := strings.Replace(w.server.URL(), w.server.Addr(), hosts, 1)

	l := w.acquire(w.open(url, "node"), "id")
	status := w.open(url, "status")
	w.eventually("who only asks is answered", func() bool {
		h, err := status.Lookup(t.Context(), "id")
		return err == nil && h.Token == l.Token()
	})
}
