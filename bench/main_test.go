package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	contestantMain() // the contestants are this program, too
	os.Exit(m.Run())
}

func TestBadFlagsAreOneLineEach(t *testing.T) {
	for name, test := range map[string]struct{ args, want string }{
		"rounds":        {"--rounds 0", `bench: invalid value "0" for flag -rounds: a whole number above 0 is allowed`},
		"no number":     {"--rounds many", `bench: invalid value "many" for flag -rounds: a whole number above 0 is allowed`},
		"only":          {"--only postgres,redis", `bench: invalid value "postgres,redis" for flag -only: "redis": postgres, postgres/graceful, `},
		"URL":           {"--postgres localhost", `bench: invalid value "localhost" for flag -postgres: a URL that begins with postgres:// or postgresql:// is allowed`},
		"scheme":        {"--etcd http://localhost", `bench: invalid value "http://localhost" for flag -etcd: a URL that begins with etcd:// or etcds:// is allowed`},
		"argument":      {"postgres", `bench: "postgres": only flags are taken; bench --help lists them`},
		"not a flag":    {"--redis x", `bench: flag provided but not defined: -redis`},
		"no value":      {"--kubernetes", `bench: flag needs an argument: -kubernetes`},
		"not a boolean": {"--json=maybe", `bench: invalid boolean value "maybe" for -json: parse error`},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := execute(t.Context(), strings.Fields(test.args), &stdout, &stderr); code != exitUsage {
				t.Errorf("exit code %d, want %d", code, exitUsage)
			}
			if !strings.HasPrefix(stderr.String(), test.want) || strings.Count(stderr.String(), "\n") != 1 || stdout.Len() > 0 {
				t.Errorf("got %q and the output %q, want the line %q", stderr.String(), stdout.String(), test.want)
			}
		})
	}
}

func TestHelpNamesEveryFlag(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := execute(t.Context(), []string{"--help"}, &stdout, &stderr); code != 0 || stderr.Len() > 0 {
		t.Fatalf("exit code %d, %q", code, stderr.String())
	}
	for _, flag := range []string{"-rounds", "-only", "-json", "-postgres URL", "-etcd URL", "-kubernetes URL"} {
		if !strings.Contains(stdout.String(), "  "+flag) {
			t.Errorf("no %s in:\n%s", flag, stdout.String())
		}
	}
}
