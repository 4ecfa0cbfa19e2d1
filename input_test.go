package highlander_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"highlander"
)

// Bad input gets one line that names the field, the value and what is allowed,
// at once, and nothing is acquired.
func TestBadInput(t *testing.T) {
	fine := highlander.ServiceFunc(func(context.Context) error { return nil })
	for _, test := range []struct {
		name string
		spec highlander.ChildSpec
		want string
	}{
		{"no id", highlander.ChildSpec{Service: fine},
			`highlander: ChildSpec.ID: invalid id: it is empty; 1 to 255 bytes of UTF-8 are allowed`},
		{"long id", highlander.ChildSpec{ID: strings.Repeat("x", 256), Service: fine},
			`highlander: ChildSpec.ID: invalid id "xxxxxxxxxxxxxxxxxxxx"...: it has 256 bytes; at most 255 are allowed`},
		{"control character", highlander.ChildSpec{ID: "a\nb", Service: fine},
			`highlander: ChildSpec.ID: invalid id "a\nb": control character U+000A is not allowed`},
		{"not UTF-8", highlander.ChildSpec{ID: "a\xff", Service: fine},
			`highlander: ChildSpec.ID: invalid id "a\xff": it is not UTF-8`},
		{"no service", highlander.ChildSpec{ID: "worker"},
			`highlander: child "worker": ChildSpec.Service is nil; a child needs one`},
		{"unknown restart", highlander.ChildSpec{ID: "worker", Service: fine, Restart: 3},
			`highlander: child "worker": ChildSpec.Restart is Restart(3); Permanent, Transient and Temporary are allowed`},
		{"negative shutdown", highlander.ChildSpec{ID: "worker", Service: fine, Shutdown: -time.Second},
			`highlander: child "worker": ChildSpec.Shutdown is -1s; it must not be negative (zero means 5s)`},
		{"negative window", highlander.ChildSpec{ID: "worker", Service: fine, Window: -time.Second},
			`highlander: child "worker": ChildSpec.Window is -1s; it must not be negative (zero means 5s)`},
		{"long meta", highlander.ChildSpec{ID: "worker", Service: fine, Meta: strings.Repeat("x", 513)},
			`highlander: child "worker": ChildSpec.Meta: it has 513 bytes; at most 512 are allowed`},
		{"NUL in meta", highlander.ChildSpec{ID: "worker", Service: fine, Meta: "a\x00b"},
			`highlander: child "worker": ChildSpec.Meta: "a\x00b": control character U+0000 is not allowed`},
		{"meta is not UTF-8", highlander.ChildSpec{ID: "worker", Service: fine, Meta: "a\xff"},
			`highlander: child "worker": ChildSpec.Meta: "a\xff": it is not UTF-8`},
	} {
		t.Run(test.name, func(t *testing.T) {
			tl := newTimeline()
			cluster := newFakeCluster(tl)
			s := highlander.Wrap(cluster, test.spec, highlander.WithObserver(tl.event))
			mustRefuse(t, s.Serve(t.Context()), test.want)
			if len(cluster.acquired) != 0 || tl.text() != "" {
				t.Errorf("it acquired %v; this happened:\n%s", cluster.acquired, tl.text())
			}
			if status := s.Status(); status != (highlander.Status{ID: test.spec.ID}) {
				t.Errorf("status is %+v", status)
			}
		})
	}
}

func TestBadArguments(t *testing.T) {
	fine := highlander.ServiceFunc(func(context.Context) error { return nil })
	s := highlander.Wrap(nil, highlander.ChildSpec{ID: "worker", Service: fine})
	mustRefuse(t, s.Serve(t.Context()), `highlander: child "worker": the Cluster given to Wrap is nil; a singleton needs one`)
	if status := s.Status(); status != (highlander.Status{ID: "worker"}) {
		t.Errorf("status is %+v", status)
	}
	cluster := newFakeCluster(newTimeline())
	mustRefuse(t, highlander.Run(t.Context(), cluster, "migrate", nil),
		`highlander: child "migrate": ChildSpec.Service is nil; a child needs one`)
	mustRefuse(t, highlander.Run(t.Context(), nil, "migrate", fine),
		`highlander: child "migrate": the Cluster given to Wrap is nil; a singleton needs one`)
	mustMatch(t, highlander.Run(t.Context(), cluster, "", fine), highlander.ErrInvalidID)
}

func TestErrorsOfAcquireComeBack(t *testing.T) {
	for _, refusal := range []error{highlander.ErrClosed, highlander.ErrInvalidID, errors.New("the TTL is too short for ChildSpec.Shutdown")} {
		synctest.Test(t, func(t *testing.T) {
			r := rigUp(newTimeline(), highlander.ChildSpec{Service: untilTold(nil, 0)})
			r.cluster.refuse = refusal
			err := r.Serve(t.Context())
			mustMatch(t, err, refusal)
			mustRefuse(t, err, `highlander: child "worker": acquire the lease: `+refusal.Error())
		})
	}
}

func TestClosedClusterEndsTheWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := serve(t, newTimeline(), highlander.ChildSpec{Service: untilTold(nil, 0)})
		r.cluster.Close()
		mustMatch(t, r.returned(t), highlander.ErrClosed)
	})
}

func mustRefuse(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Errorf("error is\n%v\nwant\n%s", err, want)
	}
}
