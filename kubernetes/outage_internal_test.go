package kubernetes

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// chronicle has what an outage has logged, above debug level.
type chronicle struct {
	*outage
	now  time.Duration
	text bytes.Buffer
}

func newChronicle() *chronicle {
	c := &chronicle{now: time.Hour}
	drop := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	log := slog.New(slog.NewTextHandler(&c.text, &slog.HandlerOptions{ReplaceAttr: drop}))
	c.outage = newOutage(log, func() time.Duration { return c.now })
	return c
}

const (
	begins = `level=WARN msg="Kubernetes cannot be used; trying again" error=refused`
	ends   = `level=INFO msg="Kubernetes can be used again" after=`
)

func TestAnOutageIsTwoLines(t *testing.T) {
	refused := errors.New("refused")
	for name, test := range map[string]struct {
		happens func(*chronicle)
		want    []string
	}{
		"nothing fails": {func(c *chronicle) {
			c.works("a")
			c.givesUp("a")
		}, nil},
		"all leases, and the watch": {func(c *chronicle) {
			for range 3 {
				c.fails("a", refused)
				c.now += time.Second
				c.fails(theWatch, refused)
				c.fails("b", refused)
				c.now += time.Second
			}
			c.works(theWatch)
			c.works("c")
			c.works("a")
			c.now += time.Second
			c.works("b")
			c.works("b")
		}, []string{begins, ends + "7s"}},
		"one lease, while others are well": {func(c *chronicle) {
			for range 3 {
				c.works("a")
				c.fails("b", refused)
				c.now += time.Second
				c.works(theWatch)
			}
			c.works("b")
		}, []string{begins, ends + "3s"}},
		"a lease that is lost, and the id is waited for": {func(c *chronicle) {
			c.fails("a", refused)
			c.givesUp("a")
			c.now += time.Second
			c.fails("a", refused)
			c.now += time.Second
			c.works("a")
		}, []string{begins, ends + "2s"}},
		"a lease that nobody wants any more": {func(c *chronicle) {
			c.fails("a", refused)
			c.fails(theWatch, refused)
			c.givesUp("a")
			c.now += time.Second
			c.works(theWatch)
		}, []string{begins, ends + "1s"}},
		"one after the other": {func(c *chronicle) {
			c.fails("a", refused)
			c.works("a")
			c.now += time.Hour
			c.fails("a", refused)
			c.works("a")
		}, []string{begins, ends + "0s", begins, ends + "0s"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newChronicle()
			test.happens(c)
			var want string
			if len(test.want) > 0 {
				want = strings.Join(test.want, "\n") + "\n"
			}
			if got := c.text.String(); got != want {
				t.Errorf("it logs\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// quietOutage is for tests that are not about it.
func quietOutage(clock func() time.Duration) *outage {
	return newOutage(slog.New(slog.NewTextHandler(io.Discard, nil)), clock)
}
