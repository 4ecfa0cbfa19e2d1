package postgres

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"highlander/internal/clusterurl"
)

// parseURL takes what is ours out of a URL and gives the rest to pgx.
func parseURL(raw string) (*pgx.ConnConfig, []Option, error) {
	u, err := url.Parse(raw)
	if passwordAstray(raw, err != nil) {
		return nil, nil, errors.New("'@' is not allowed after the host; in a user or a password '/', '?', '#' and '@' are written %2F, %3F, %23 and %40")
	}
	if err != nil {
		if detail := (*url.Error)(nil); errors.As(err, &detail) {
			err = detail.Err // without the URL, which may have a password in it
		}
		return nil, nil, err
	}
	switch {
	case u.Scheme != "postgres" && u.Scheme != "postgresql":
		return nil, nil, fmt.Errorf("scheme %q; postgres://USER@HOST:PORT/DATABASE is allowed", u.Scheme)
	case u.Opaque != "":
		return nil, nil, errors.New("the // after postgres: is missing; postgres://USER@HOST:PORT/DATABASE is allowed")
	case u.Fragment != "" || strings.HasSuffix(raw, "#"):
		return nil, nil, errors.New("'#' is not allowed (in a name or a value it is written %23)")
	case u.Host == "" && u.Path == "":
		u.Path = "/" // pgx needs it to see a URL
	}
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, nil, fmt.Errorf("parameters: %w", err)
	}
	opts, err := ownParams(values)
	if err != nil {
		return nil, nil, err
	}
	if err := checkPgxParams(values); err != nil {
		return nil, nil, err
	}
	u.RawQuery = values.Encode()
	conn, err := pgx.ParseConfig(u.String())
	if err != nil {
		return nil, nil, withoutURL(err)
	}
	return conn, opts, nil
}

// pgxValues are the values of pgx's parameters where there are few. What pgx says
// against another one shows neither it nor these.
var pgxValues = map[string][]string{
	"sslmode":              {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"},
	"target_session_attrs": {"any", "read-write", "read-only", "primary", "standby", "prefer-standby"},
}

// checkPgxParams says what is allowed, where pgx does not.
func checkPgxParams(values url.Values) error {
	for _, name := range slices.Sorted(maps.Keys(pgxValues)) {
		if value := values.Get(name); values.Has(name) && !slices.Contains(pgxValues[name], value) {
			return fmt.Errorf("%s=%s: %s are allowed", name, value, strings.Join(pgxValues[name], ", "))
		}
	}
	if value := values.Get("connect_timeout"); values.Has("connect_timeout") {
		if n, err := strconv.Atoi(value); err != nil || n < 0 {
			return fmt.Errorf("connect_timeout=%s: a whole number of seconds is allowed", value)
		}
	}
	if file := values.Get("sslrootcert"); file != "" && file != "system" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("sslrootcert: %w", err)
		}
		if !x509.NewCertPool().AppendCertsFromPEM(pem) {
			return fmt.Errorf("sslrootcert=%s: there is no certificate (PEM) in it", file)
		}
	}
	return nil
}

// passwordAstray says whether a user or a password in a URL has an end where
// nobody meant one: at a '/', '?' or '#' of its own. The rest of it would be
// shown as a port, a database or the name of a parameter.
func passwordAstray(raw string, malformed bool) bool {
	_, rest, _ := strings.Cut(raw, "://")
	after := rest[max(0, strings.IndexAny(rest, "/?#")):]
	path, query, _ := strings.Cut(after, "?")
	param, _, _ := strings.Cut(query, "=")
	return strings.Contains(path+param, "@") || malformed && strings.Contains(after, "@")
}

// withoutURL returns what pgx says against a URL without the URL, which may have
// a password in it. What is left names the parameter.
func withoutURL(err error) error {
	if detail := (*pgconn.ParseConfigError)(nil); errors.As(err, &detail) {
		if _, what, ok := strings.Cut(err.Error(), "`: "); ok {
			what = strings.Replace(what, "invalid port", "invalid port; 1 to 65535 are allowed", 1)
			return errors.New(what)
		}
	}
	return err
}

// ownParams takes our parameters out of values.
func ownParams(values url.Values) (opts []Option, err error) {
	var own config
	err = clusterurl.TakeParams(values, []clusterurl.Param{
		clusterurl.String("name", &own.name),
		clusterurl.Duration("ttl", &own.ttl, fmt.Sprintf("a time from %v to %v, such as 12s, is allowed", minTTL, maxTTL)),
		clusterurl.String("schema", &own.schema),
	})
	if err != nil {
		return nil, err
	}
	if own.name != "" {
		opts = append(opts, WithName(own.name))
	}
	if own.ttl != 0 {
		opts = append(opts, WithTTL(own.ttl))
	}
	if own.schema != "" {
		opts = append(opts, WithSchema(own.schema))
	}
	return opts, nil
}
