package etcd_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"highlander/etcd"
)

func TestGoodURLs(t *testing.T) {
	dir := t.TempDir()
	password := filepath.Join(dir, "password")
	must(t, os.WriteFile(password, []byte("secret\n"), 0o600))
	for _, url := range []string{
		"etcd://127.0.0.1",
		"etcd://a:2379,b:2379,[::1]:2379,[::1]/some/prefix",
		"etcds://a?ttl=3s&name=n",
		"etcd://a?prefix=/p&user=u&password-file=" + password,
	} {
		c, err := etcd.Open(url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		must(t, c.Close())
	}
}

func TestBadURLsAreRefusedInOneLine(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	must(t, os.WriteFile(empty, nil, 0o600))
	for url, want := range map[string]string{
		"http://a":                                  `scheme "http"; etcd://HOST:PORT is allowed`,
		"etcd:a":                                    `host "": the name is missing; HOST:PORT,HOST:PORT is allowed`,
		"etcd://":                                   `host "": the name is missing`,
		"etcd://a,,b":                               `host "": the name is missing`,
		"etcd://::1":                                `host "::1": HOST:PORT is allowed, an IPv6 address in brackets`,
		"etcd://u:secret@a":                         `a user is not allowed before the host; write user=USER&password-file=FILE`,
		"etcd://u:secret/1@a/p":                     `a user is not allowed before the host; write user=USER&password-file=FILE`,
		"etcd://a:99999/p":                          `host "a:99999": a port from 1 to 65535 is allowed`,
		"etcd://a:0":                                `host "a:0": a port from 1 to 65535 is allowed`,
		"etcd://a:client":                           `host "a:client": a port from 1 to 65535 is allowed`,
		"etcd://a:":                                 `host "a:": a port from 1 to 65535 is allowed`,
		"etcd://a, b":                               `host " b": spaces are not allowed`,
		"etcd://a#b":                                `'#' is not allowed`,
		"etcd://a?tls=1":                            `unknown parameter "tls"; allowed are name, ttl, prefix, ca-file, cert-file, key-file, user, password-file`,
		"etcd://a?ttl=":                             `parameter "ttl" has no value`,
		"etcd://a?ttl=3s&ttl=4s":                    `parameter "ttl" is given 2 times`,
		"etcd://a?ttl=soon":                         `ttl=soon: whole seconds from 1s to 1h0m0s, such as 12s, are allowed`,
		"etcd://a?ttl=1500ms":                       `TTL 1.5s: whole seconds from 1s to 1h0m0s are allowed`,
		"etcd://a/p?prefix=/q":                      `the prefix is given twice`,
		"etcd://a?prefix=/q/":                       `prefix "/q/": it must not be empty or end with a slash`,
		"etcd://a?name=a%23b":                       `name "a#b": '#', spaces and control characters are not allowed`,
		"etcd://a?user=u":                           `user and password-file go together`,
		"etcd://a?cert-file=c":                      `cert-file and key-file go together`,
		"etcd://a?ca-file=/no/such":                 `ca-file: open /no/such: no such file or directory`,
		"etcd://a?ca-file=" + empty:                 `ca-file: there is no certificate in`,
		"etcd://a?user=u&password-file=" + empty:    `password-file: ` + empty + ` is empty`,
		"etcd://a?user=u&password-file=/no/such":    `password-file: open /no/such`,
		"etcd://a?cert-file=/no/such&key-file=/no/": `cert-file, key-file: open /no/such`,
	} {
		c, err := etcd.Open(url)
		if err == nil {
			c.Close()
			t.Errorf("%s was taken", url)
			continue
		}
		if got := err.Error(); !strings.Contains(got, want) || !strings.HasPrefix(got, "etcd: ") || strings.Contains(got, "\n") || strings.Contains(got, "secret") {
			t.Errorf("%s:\n got  %v\n want %s", url, got, want)
		}
	}
}

func TestNewWithoutAClientIsRefused(t *testing.T) {
	if _, err := etcd.New(nil); err == nil {
		t.Error("a nil client was taken")
	}
}
