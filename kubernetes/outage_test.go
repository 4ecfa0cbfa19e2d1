package kubernetes_test

import (
	"context"
	"testing"
	"time"

	"highlander"
	"highlander/internal/netproxy"
	"highlander/kubernetes"
)

// What an operator reads of an outage.
const (
	outageBegins = "Kubernetes cannot be used; trying again"
	outageLasts  = "Kubernetes: still no success"
	outageEnds   = "Kubernetes can be used again"
)

// saysItIsOver waits until the end of each outage was logged, of which there was one
// at least.
func (w *world) saysItIsOver(log *recorder) {
	w.t.Helper()
	w.eventually("the end of each outage is told of", func() bool {
		began := log.count("WARN", outageBegins)
		return began > 0 && log.count("INFO", outageEnds) == began
	})
}

// The lease is lost in it, and the id waited for: the holder, who waits, and the
// watch all fail, and are all told of in one line.
func TestAnOutageIsToldOfOnce(t *testing.T) {
	t.Parallel()
	cutOff := func(w *world, node highlander.Cluster) func() { return w.cut(node, (*netproxy.Proxy).Cut) }
	for name, test := range map[string]struct {
		begin     func(*world, highlander.Cluster) (end func())
		givesUp   bool // before the end
		takesOver bool // another node does
	}{
		"the holder is cut off":                         {begin: cutOff},
		"the holder is cut off, and does not wait":      {begin: cutOff, givesUp: true},
		"the holder is cut off, and another takes over": {begin: cutOff, takesOver: true},
		"the rights of the holder are gone":             {begin: func(w *world, _ highlander.Cluster) func() { w.rights.deny(); return w.rights.allow }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, log := newWorld(t), &recorder{}
			node := w.open("holder", kubernetes.WithLogger(log.logger()))
			l := w.acquire(node, "id", 0)
			var other *waiter
			if test.takesOver {
				other = w.start(w.open("other"), "id")
			}
			tries := log.count("DEBUG", outageLasts) // a busy machine is an outage, too
			end := test.begin(w, node)
			w.eventually("the outage is noticed", func() bool { return log.count("DEBUG", outageLasts) > tries })
			began, ended := log.count("WARN", outageBegins), log.count("INFO", outageEnds)
			w.receive(l.Done())
			_ = l.Release(t.Context()) // nobody hears it
			ctx, giveUp := context.WithCancel(t.Context())
			defer giveUp()
			waiter := w.startUntil(ctx, node, "id", 0)
			w.eventually("the lease has run out", func() bool { return time.Until(l.Expires()) < 0 })
			tries = log.count("DEBUG", outageLasts)
			w.eventually("it is tried again", func() bool { return log.count("DEBUG", outageLasts) > tries+2 })
			switch {
			case test.givesUp:
				giveUp()
				w.receive(waiter.done)
			case test.takesOver:
				w.firstOf(other)
			}
			if again, over := log.count("WARN", outageBegins)-began, log.count("INFO", outageEnds)-ended; again != 0 || over != 0 {
				t.Errorf("in the outage %d more lines say that it begins, and %d that it ends", again, over)
			}
			end()
			if !test.givesUp && !test.takesOver {
				w.firstOf(waiter)
			}
			w.saysItIsOver(log)
		})
	}
}
