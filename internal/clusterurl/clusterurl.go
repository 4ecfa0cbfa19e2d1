// Package clusterurl reads what the cluster URLs of all engines have in common.
// Its errors are one line, say what is allowed, and do not show the URL, which may
// have a password in it.
package clusterurl

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Param is a parameter that a URL may have, once. Set is given a value that is not
// empty; its error names the parameter.
type Param struct {
	Name string
	Set  func(value string) error
}

// String is a parameter that may be any text.
func String(name string, to *string) Param {
	return Param{name, func(value string) error {
		*to = value
		return nil
	}}
}

// Duration is a parameter that may be a time other than zero, such as 12s. The
// error says what is allowed.
func Duration(name string, to *time.Duration, allowed string) Param {
	return Param{name, func(value string) error {
		d, err := time.ParseDuration(value)
		if err != nil || d == 0 {
			return fmt.Errorf("%s=%s: %s", name, value, allowed)
		}
		*to = d
		return nil
	}}
}

// Parse is url.Parse for a URL without a '#', which nobody means to begin a
// fragment with.
func Parse(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		var detail *url.Error
		if errors.As(err, &detail) {
			err = detail.Err
		}
		return nil, err
	}
	if strings.Contains(raw, "#") {
		return nil, errors.New("'#' is not allowed (in a value it is written %23)")
	}
	return u, nil
}

// SetParams sets the parameters of a query, which are all among those allowed, in
// the order of the latter.
func SetParams(query string, allowed []Param) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return fmt.Errorf("parameters: %w", err)
	}
	var names []string
	for _, param := range allowed {
		names = append(names, param.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !slices.Contains(names, name) {
			return fmt.Errorf("unknown parameter %q; allowed are %s", name, strings.Join(names, ", "))
		}
	}
	return TakeParams(values, allowed)
}

// TakeParams sets the parameters that are among values, takes them out, and leaves
// the others.
func TakeParams(values url.Values, params []Param) error {
	for _, param := range params {
		given := values[param.Name]
		values.Del(param.Name)
		switch {
		case len(given) > 1:
			return fmt.Errorf("parameter %q is given %d times; once is allowed", param.Name, len(given))
		case len(given) == 1 && given[0] == "":
			return fmt.Errorf("parameter %q has no value; leave it out or give one", param.Name)
		case len(given) == 1:
			if err := param.Set(given[0]); err != nil {
				return err
			}
		}
	}
	return nil
}
