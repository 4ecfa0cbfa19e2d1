package gossip_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"highlander/gossip"
)

func TestParseURL(t *testing.T) {
	for _, test := range []struct {
		url  string
		want gossip.Config
	}{
		{"gossip://", gossip.Config{}},
		{"gossip:///", gossip.Config{}},
		{"gossip://127.0.0.1:0", gossip.Config{Bind: "127.0.0.1:0"}},
		{"gossip://127.0.0.1", gossip.Config{Bind: "127.0.0.1:7946"}},
		{"gossip://[::1]:7000", gossip.Config{Bind: "[::1]:7000"}},
		{"gossip://?join=a,b:1,10.0.0.1:7&expect=3", gossip.Config{Join: []string{"a", "b:1", "10.0.0.1:7"}, Expect: 3}},
		{"gossip://127.0.0.1:1?name=n&label=a%23b&advertise=10.0.0.1:7946", gossip.Config{Bind: "127.0.0.1:1", Name: "n", Label: "a#b", Advertise: "10.0.0.1:7946"}},
		{"gossip://0.0.0.0:7946?observer=true&insecure=true", gossip.Config{Bind: "0.0.0.0:7946", Observer: true, Insecure: true}},
		{"gossip://?observer=false&insecure=false", gossip.Config{}},
		{"gossip://?quorum=2", gossip.Config{Quorum: 2}},
		{"gossip://?quorum=3&expect=4&ttl=1500ms", gossip.Config{Quorum: 3, Expect: 4, TTL: 1500 * time.Millisecond}},
	} {
		got, err := gossip.ParseURL(test.url)
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s\n got %+v, %v\nwant %+v", test.url, got, err, test.want)
		}
	}
}

func TestParseURLSaysWhatIsWrong(t *testing.T) {
	allowed := "allowed are join, name, label, key-file, expect, quorum, ttl, advertise, observer, insecure"
	for url, want := range map[string]string{
		"":                                   `scheme ""; gossip://IP:PORT is allowed`,
		"etcd://h":                           `scheme "etcd"; gossip://IP:PORT is allowed`,
		"gossip:127.0.0.1:7946":              `the // after gossip: is missing; gossip://IP:PORT is allowed`,
		"gossip://u:p@127.0.0.1:7946":        `a user is not allowed; keys are given as key-file=FILE`,
		"gossip://127.0.0.1:7946/x":          `path "/x" is not allowed; gossip://IP:PORT is`,
		"gossip://127.0.0.1:7946#x":          `'#' is not allowed (in a value it is written %23)`,
		"gossip://127.0.0.1:7946#":           `'#' is not allowed (in a value it is written %23)`,
		"gossip://:7946":                     `address ":7946": the IP is missing; IP:PORT is allowed, such as 0.0.0.0:7946`,
		"gossip://localhost:7946":            `address "localhost:7946": "localhost" is not an IP address; IP:PORT is allowed`,
		"gossip://127.0.0.1:port":            `invalid port ":port" after host`,
		"gossip://127.0.0.1:70000":           `address "127.0.0.1:70000": port "70000": 0 to 65535 is allowed`,
		"gossip://u:secret@127.0.0.1:port":   `invalid port ":port" after host`,
		"gossip://0.0.0.0:7946":              `address 0.0.0.0:7946 is reachable from other machines, and there is no key; set key-file, or insecure=true to do without`,
		"gossip://?quorums=2":                `unknown parameter "quorums"; ` + allowed,
		"gossip://?quorum=0":                 `quorum=0: a number of voters, 1 or more, is allowed; without quorum, the cluster is in available mode`,
		"gossip://?quorum=-2":                `quorum=-2: a number of voters, 1 or more, is allowed; without quorum, the cluster is in available mode`,
		"gossip://?quorum=2&expect=4":        `quorum 2 is not above half of 4 voters (expect): two sides of 2 could each run the child; at least 3 is needed`,
		"gossip://?quorum=2&ttl=3":           `ttl=3: a time from 1s to 10m0s, such as 12s, is allowed`,
		"gossip://?quorum=2&ttl=0s":          `ttl=0s: a time from 1s to 10m0s, such as 12s, is allowed`,
		"gossip://?quorum=2&ttl=1h":          `ttl is 1h0m0s; 1s to 10m0s is allowed`,
		"gossip://?ttl=3s":                   `ttl is 3s, and there is no quorum; without one, leases do not run out: set it, or leave ttl out`,
		"gossip://?Join=a":                   `unknown parameter "Join"; ` + allowed,
		"gossip://?join=a&join=b":            `parameter "join" is given 2 times; once is allowed`,
		"gossip://?join=":                    `parameter "join" has no value; leave it out or give one`,
		"gossip://?observer":                 `parameter "observer" has no value; leave it out or give one`,
		"gossip://?join=a,,b":                `join "": it is empty; HOST and HOST:PORT are allowed`,
		"gossip://?join=a:0":                 `join "a:0": port 0 cannot be joined; HOST and HOST:PORT are allowed`,
		"gossip://?join=a:b":                 `join "a:b": port "b": 0 to 65535 is allowed; HOST and HOST:PORT are allowed`,
		"gossip://?join=a;expect=3":          `parameters: invalid semicolon separator in query`,
		"gossip://?name=a%23b":               `name "a#b": '#', spaces and control characters are not allowed`,
		"gossip://?name=%ff":                 `name "\xff" is not UTF-8`,
		"gossip://?expect=x":                 `expect=x: a number of nodes, 0 to 65535, is allowed`,
		"gossip://?expect=-1":                `expect=-1: a number of nodes, 0 to 65535, is allowed`,
		"gossip://?observer=yes":             `observer=yes: true and false are allowed`,
		"gossip://?insecure=1":               `insecure=1: true and false are allowed`,
		"gossip://?advertise=10.0.0.1":       `advertise "10.0.0.1": IP:PORT is allowed`,
		"gossip://?advertise=10.0.0.1:0":     `advertise "10.0.0.1:0": others cannot reach that; an IP and a port other than 0 are needed`,
		"gossip://?key-file=/does/not/exist": `key-file /does/not/exist: no such file or directory`,
		"gossip://?key-file=/":               `key-file /: it is not a regular file`,
	} {
		_, err := gossip.ParseURL(url)
		if want = "gossip: cluster URL: " + want; err == nil || err.Error() != want {
			t.Errorf("%s\n got %v\nwant %s", url, err, want)
		}
	}
}

func TestKeyFile(t *testing.T) {
	k16, k24, k32 := bytes.Repeat([]byte{1}, 16), bytes.Repeat([]byte{0xfe}, 24), bytes.Repeat([]byte{7}, 32)
	text := fmt.Sprintf("# the new key\n%s\n\n  %s\r\n%s", base64.StdEncoding.EncodeToString(k32), hex.EncodeToString(k16), strings.ToUpper(hex.EncodeToString(k24)))
	file := keyFile(t, text, 0o600)
	if cfg, err := gossip.ParseURL("gossip://0.0.0.0:7946?key-file=" + file); err != nil || cfg.KeyFile != file {
		t.Errorf("got key file %q, %v; want %s", cfg.KeyFile, err, file)
	}
	keys, err := gossip.ReadKeyFile(file)
	if want := [][]byte{k32, k16, k24}; err != nil || !reflect.DeepEqual(keys, want) {
		t.Errorf("got keys %v, %v; want %v", keys, err, want)
	}
}

func TestKeyFileSaysWhatIsWrong(t *testing.T) {
	good := strings.Repeat("ab", 16)
	none := "there is no key in it; one per line is needed, 16, 24 or 32 bytes in base64 or hex"
	for _, test := range []struct {
		text string
		mode os.FileMode
		want string
	}{
		{"", 0o600, none},
		{"\n# nothing\n", 0o400, none},
		{good + "\n" + good + "ab", 0o600, "line 2: the key has 17 bytes; 16, 24 and 32 are allowed"},
		{"# old\n" + base64.StdEncoding.EncodeToString(make([]byte, 20)), 0o600, "line 2: the key has 20 bytes; 16, 24 and 32 are allowed"},
		{"not a key", 0o600, "line 1: it is neither base64 nor hex"},
		{good + " # trailing", 0o600, "line 1: it is neither base64 nor hex"},
		{strings.Repeat("\n", 64<<10+1), 0o600, "it has 65537 bytes; at most 65536 are allowed"},
		{good, 0o640, "its mode is 0640, others can get at the keys; run: chmod 600 FILE"},
		{good, 0o604, "its mode is 0604, others can get at the keys; run: chmod 600 FILE"},
		{good, 0o620, "its mode is 0620, others can get at the keys; run: chmod 600 FILE"},
	} {
		file := keyFile(t, test.text, test.mode)
		_, err := gossip.ParseURL("gossip://?key-file=" + file)
		want := "gossip: cluster URL: key-file " + file + ": " + strings.ReplaceAll(test.want, "FILE", file)
		if err == nil || err.Error() != want {
			t.Errorf("%.40q\n got %v\nwant %s", test.text, err, want)
		}
	}
}

func keyFile(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
	return file
}
