package clusterurl_test

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"highlander/internal/clusterurl"
)

// set is what was set, in that order.
type set []string

// params are two, the second of which may only be small.
func (s *set) params() []clusterurl.Param {
	note := func(name string) func(string) error {
		return func(value string) error {
			if name == "size" && value != "small" {
				return fmt.Errorf("size=%s: small is allowed", value)
			}
			*s = append(*s, name+"="+value)
			return nil
		}
	}
	return []clusterurl.Param{{Name: "where", Set: note("where")}, {Name: "size", Set: note("size")}}
}

func TestParametersAreSetInTheOrderOfTheDocumentation(t *testing.T) {
	for query, want := range map[string]set{
		"":                         nil,
		"where=a%20b":              {"where=a b"},
		"size=small&where=there":   {"where=there", "size=small"},
		"where=%23%26&size=small&": {"where=#&", "size=small"},
	} {
		var got set
		if err := clusterurl.SetParams(query, got.params()); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: set %q, %v; want %q", query, got, err, want)
		}
	}
}

func TestBadParametersAreRefusedInOneLine(t *testing.T) {
	for query, want := range map[string]string{
		"colour=red":               `unknown parameter "colour"; allowed are where, size`,
		"taste=sour&colour=red":    `unknown parameter "colour"; allowed are where, size`,
		"Where=there":              `unknown parameter "Where"; allowed are where, size`,
		"colour=red&size=large":    `unknown parameter "colour"; allowed are where, size`,
		"where=":                   `parameter "where" has no value; leave it out or give one`,
		"where":                    `parameter "where" has no value; leave it out or give one`,
		"where=a&where=b":          `parameter "where" is given 2 times; once is allowed`,
		"where=&where=":            `parameter "where" is given 2 times; once is allowed`,
		"size=large":               `size=large: small is allowed`,
		"where=%zz":                `parameters: invalid URL escape "%zz"`,
		"where=a;size=small":       `parameters: invalid semicolon separator in query`,
		"a%0ab=c":                  `unknown parameter "a\nb"; allowed are where, size`,
		"size=large&where=a&=none": `unknown parameter ""; allowed are where, size`,
	} {
		var got set
		if err := clusterurl.SetParams(query, got.params()); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", query, err, want)
		}
	}
}

func TestTextAndTimes(t *testing.T) {
	var name string
	var ttl time.Duration
	params := []clusterurl.Param{
		clusterurl.String("name", &name),
		clusterurl.Duration("ttl", &ttl, "a time is allowed"),
	}
	if err := clusterurl.SetParams("ttl=1500ms&name=a", params); err != nil {
		t.Fatal(err)
	}
	if name != "a" || ttl != 1500*time.Millisecond {
		t.Errorf("set name %q and ttl %v", name, ttl)
	}
	for _, value := range []string{"15", "soon", "0s"} {
		err := clusterurl.SetParams("ttl="+value, params)
		if want := "ttl=" + value + ": a time is allowed"; err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if ttl != 1500*time.Millisecond {
		t.Errorf("what was refused was set: %v", ttl)
	}
}

func TestParametersOfOthersAreLeft(t *testing.T) {
	var got set
	values := url.Values{"size": {"small"}, "theirs": {"", "b"}}
	if err := clusterurl.TakeParams(values, got.params()); err != nil {
		t.Fatal(err)
	}
	if want := (set{"size=small"}); !slices.Equal(got, want) {
		t.Errorf("set %q, want %q", got, want)
	}
	if want := (url.Values{"theirs": {"", "b"}}); !maps.EqualFunc(values, want, slices.Equal) {
		t.Errorf("left %v, want %v", values, want)
	}
}

func TestAnErrorDoesNotShowTheURL(t *testing.T) {
	for raw, want := range map[string]string{
		"x://me:secret@%zz":   `invalid URL escape "%zz"`,
		"x://me:secret@a:b:c": `invalid port ":c" after host`,
		"x://me:secret@a#b":   `'#' is not allowed (in a value it is written %23)`,
		"x://me:secret@a?b=#": `'#' is not allowed (in a value it is written %23)`,
	} {
		_, err := clusterurl.Parse(raw)
		if err == nil || err.Error() != want || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v, want %s", raw, err, want)
		}
	}
}

func TestAURLIsParsed(t *testing.T) {
	u, err := clusterurl.Parse("x://host:1/path?a=%23")
	if err != nil {
		t.Fatal(err)
	}
	if u.Scheme != "x" || u.Host != "host:1" || u.Path != "/path" || u.RawQuery != "a=%23" {
		t.Errorf("it was taken for %#v", u)
	}
}
