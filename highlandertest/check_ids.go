package highlandertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"highlander"
)

// oddIDList are ids that are hard on SQL, paths, URLs, patterns, object names
// and whoever normalizes or truncates; each differs from its neighbour only in
// what such code loses.
func oddIDList() []string {
	long := strings.Repeat("x", highlander.MaxIDLen-1)
	return []string{
		"odd", "Odd", "ODD", " odd", "odd ", "odd  odd", "odd odd",
		"odd/odd", "odd//odd", "/odd", "odd/", "odd%2Fodd", "odd%2fodd", "odd+odd", "odd%20odd",
		".", "..", "odd.", "../odd", "odd-odd", "odd_odd", "odd:odd", "odd#1", "odd?x=1&y", "odd;odd", "odd,odd", "odd=odd",
		"'", "''", `"`, "`", `\`, `\\`, `\n`, "%", "%%", "%s", "%d", "$1", "${odd}", "*", "odd*", "[odd]", "{odd}", "<odd>", "|", "~", "&amp;", "--", "-odd",
		"'; DROP TABLE highlander; --", "NULL", "null", "0", "00", "true",
		"größe", "gro\u0308ße", "groesse", "ı", "i", "İ", "有一个", "одна", "🗡", "👨‍👩‍👧", "\u200b", "\ufeffodd", "\u202eodd", "\u00a0",
		long, long + "y", long + "z", strings.Repeat("🗡", 63) + "odd", strings.Repeat("🗡", 63) + "doo",
	}
}

func oddIDs(s *script) {
	ids := oddIDList()
	var leases []*lease
	for i, id := range ids { // all held at once: each is its own
		leases = append(leases, s.acquireWith(s.nodes[i%3], id, highlander.AcquireOptions{Meta: fmt.Sprint("odd id ", i)}))
	}
	for i, id := range ids {
		h := s.seeHolder(id, leases[i].node, s.nodes...)
		if want := fmt.Sprint("odd id ", i); h.ID != id || h.Meta != want {
			s.t.Errorf("Lookup(%q) gives %+v, want that id and Meta %q", id, h, want)
		}
	}
	for i, id := range ids {
		s.release(leases[i])
		s.release(s.acquire(s.nodes[(i+1)%3], id))
	}
}

func badIDs(s *script) {
	for name, id := range map[string]string{
		"empty":                 "",
		"one byte too long":     strings.Repeat("x", highlander.MaxIDLen+1),
		"too long in bytes":     strings.Repeat("🗡", 64),
		"far too long":          strings.Repeat("x", 1<<20),
		"NUL":                   "bad\x00id",
		"newline":               "bad\n",
		"tab":                   "\tbad",
		"delete":                "bad\x7f",
		"C1 control":            "bad\u0085id",
		"not UTF-8":             "bad\xff",
		"a truncated character": "bad\xf0\x9f",
		"a surrogate":           "bad\xed\xa0\x80",
	} {
		for _, node := range s.nodes {
			acquire := s.do("Acquire", func(ctx context.Context) error {
				_, err := s.acquireNow(ctx, node, id, highlander.AcquireOptions{})
				return err
			})
			lookup := s.do("Lookup", func(ctx context.Context) error {
				_, err := node.Lookup(ctx, id)
				return err
			})
			for _, err := range []error{acquire, lookup} {
				if !errors.Is(err, highlander.ErrInvalidID) {
					s.t.Errorf("id that is bad (%s): error is %v, want ErrInvalidID", name, err)
				} else if strings.Contains(err.Error(), "\n") || len(err.Error()) > 1024 {
					s.t.Errorf("id that is bad (%s): the error is not one short line: %q", name, err)
				}
			}
		}
	}
}

func badOptions(s *script) {
	for _, test := range []struct {
		name, field string
		opts        highlander.AcquireOptions
	}{
		{"one byte too long", "Meta", highlander.AcquireOptions{Meta: strings.Repeat("x", highlander.MaxMetaLen+1)}},
		{"with NUL", "Meta", highlander.AcquireOptions{Meta: "a\x00b"}},
		{"not UTF-8", "Meta", highlander.AcquireOptions{Meta: "\xff"}},
		{"negative", "StopWithin", highlander.AcquireOptions{StopWithin: -time.Second}},
	} {
		id := s.id(test.field + " " + test.name)
		err := s.do("Acquire", func(ctx context.Context) error {
			_, err := s.acquireNow(ctx, s.nodes[0], id, test.opts)
			return err
		})
		if err == nil || !strings.Contains(err.Error(), test.field) {
			s.t.Errorf("%s that is bad (%s): error is %v, want one that names the field", test.field, test.name, err)
		}
		s.seeNobody(id)
	}
}
