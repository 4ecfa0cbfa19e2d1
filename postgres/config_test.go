package postgres_test

import (
	"strings"
	"testing"
	"time"

	"highlander/postgres"
)

func TestBadURLsAndOptionsAreRefusedInOneLine(t *testing.T) {
	const good = "postgres://app:secret@localhost/app"
	for _, test := range []struct {
		url  string
		opt  postgres.Option
		want string
	}{
		{"mysql://localhost/app", nil, `"mysql"`},
		{good + "?ttl=soon", nil, "ttl=soon"},
		{good + "?ttl=1ms", nil, "1s to 2m0s"},
		{good + "?ttl=10s&ttl=12s", nil, "2 times"},
		{good + "?schema=", nil, `"schema" has no value`},
		{good + "?schema=pg_toast", nil, "pg_toast"},
		{good + "?name=a%23b", nil, "name"},
		{good + "?sslmode=nonsense", nil, "sslmode=nonsense: disable, allow"},
		{good + "?target_session_attrs=nonsense", nil, "target_session_attrs=nonsense: any, read-write"},
		{good + "?sslmode=verify-full&sslrootcert=/nowhere.pem", nil, "sslrootcert: open /nowhere.pem"},
		{good + "?sslmode=verify-full&sslrootcert=/dev/null", nil, "sslrootcert=/dev/null: there is no certificate"},
		{good + "?sslmode=disable&connect_timeout=soon", nil, "connect_timeout=soon: a whole number"},
		{"postgres://app@localhost:99999/app?password=secret", nil, "1 to 65535"},
		{"postgres:app", nil, "// after postgres: is missing"},
		{good + "#x", nil, "'#' is not allowed"},
		{"postgres://app:secret@local host/app", nil, "invalid"},
		{"postgres://app:secret/1@localhost/app", nil, "%2F"},
		{"postgres://app:secret/1=@localhost/app", nil, "%2F"},
		{"postgres://app:secret#1@localhost/app", nil, "%23"},
		{"postgres://app:secret?1@localhost/app", nil, "%3F"},
		{"postgres://app:1/secret@localhost/app", nil, "%2F"},
		{"postgres://app:1@2/secret@localhost/app", nil, "%40"},
		{good, postgres.WithTTL(time.Hour), "1h0m0s"},
		{good, postgres.WithSchema(strings.Repeat("x", 64)), "64"},
		{good, postgres.WithName("two words"), "name"},
	} {
		var opts []postgres.Option
		if test.opt != nil {
			opts = append(opts, test.opt)
		}
		_, err := postgres.Open(test.url, opts...)
		switch {
		case err == nil:
			t.Errorf("%s is taken; want an error that says %q", test.url, test.want)
		case !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n"):
			t.Errorf("%s: %q; want one line that says %q", test.url, err, test.want)
		case strings.Contains(err.Error(), "secret"):
			t.Errorf("%s: %q gives the password away", test.url, err)
		}
	}
}

func TestGoodURLs(t *testing.T) {
	for _, url := range []string{
		"postgres://",
		"postgres:///app?host=/run/a@b",
		"postgres://localhost?user=me@realm",
		"postgres://me%40realm:a%2Fb%3Fc%23d%40e@localhost/app",
		"postgres://me@a:5432,b:5433/app?target_session_attrs=any",
	} {
		c, err := postgres.Open(url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if err := c.Close(); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestNewWithoutAPoolIsRefused(t *testing.T) {
	if _, err := postgres.New(nil); err == nil || err.Error() != "postgres: the pool is nil" {
		t.Errorf("a nil pool: error %v", err)
	}
}

func TestURLHasOptions(t *testing.T) {
	c, err := postgres.Open("postgresql://localhost/app?name=me&ttl=30s&schema=s&sslmode=disable&connect_timeout=5")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if !strings.HasPrefix(c.Node(), "me#") {
		t.Errorf("the node is %s", c.Node())
	}
	if err := c.CheckStopWithin(14 * time.Second); err != nil {
		t.Error(err)
	}
	if err := c.CheckStopWithin(20 * time.Second); err == nil {
		t.Error("20 s to stop fit into a TTL of 30 s, with two renewals to lose")
	}
}
