package nodename_test

import (
	"os"
	"strings"
	"testing"

	"highlander/internal/nodename"
)

func TestNamesAreChecked(t *testing.T) {
	for name, want := range map[string]string{
		"":                       "",
		"häns-1.example.org":     "",
		strings.Repeat("n", 128): "",
		strings.Repeat("n", 129): "Name has 129 bytes; at most 128 are allowed",
		"a#b":                    `Name "a#b": '#', spaces and control characters are not allowed`,
		"a b":                    `Name "a b": '#', spaces and control characters are not allowed`,
		"a\x00":                  `Name "a\x00": '#', spaces and control characters are not allowed`,
		"a\xff":                  `Name "a\xff" is not UTF-8`,
	} {
		got := ""
		if err := nodename.Check("Name", name); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: error is %q, want %q", name, got, want)
		}
	}
}

func TestNameIsThatOfTheHostByDefault(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Skip(err)
	}
	if got, err := nodename.OrHost("Name", ""); err != nil || got != host {
		t.Errorf("OrHost: %q, %v, want %q", got, err, host)
	}
	if got, err := nodename.OrHost("Name", "given"); err != nil || got != "given" {
		t.Errorf("OrHost: %q, %v, want given", got, err)
	}
	if _, err := nodename.OrHost("Name", "a#b"); err == nil {
		t.Error("OrHost takes a name that is not allowed")
	}
}

func TestSplitIsTheReverseOfJoin(t *testing.T) {
	for _, incarnation := range []uint64{0, 1, nodename.NewIncarnation(), 1<<64 - 1} {
		full := nodename.Join("n", incarnation)
		if name, got, err := nodename.Split(full); name != "n" || got != incarnation || err != nil {
			t.Errorf("Split(%q): %q, %d, %v", full, name, got, err)
		}
	}
	for _, full := range []string{"", "n", "n#", "n#1", "n#000000000000000G", "n#00000000000000AB", "n#0000000000000001#", "a b#0000000000000001"} {
		if name, incarnation, err := nodename.Split(full); err == nil {
			t.Errorf("Split(%q): %q, %d, want an error", full, name, incarnation)
		}
	}
}

func TestIncarnationsDiffer(t *testing.T) {
	if first := nodename.NewIncarnation(); first == nodename.NewIncarnation() {
		t.Error("two starts have one incarnation")
	}
}
