package gossip_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"highlander/gossip"
)

// Keys that tests rotate.
var (
	oldKey   = bytes.Repeat([]byte{1}, 16)
	newKey   = bytes.Repeat([]byte{2}, 32)
	otherKey = bytes.Repeat([]byte{3}, 24)
)

func keyText(keys ...[]byte) string {
	var text strings.Builder
	for _, key := range keys {
		fmt.Fprintln(&text, hex.EncodeToString(key))
	}
	return text.String()
}

// replaceFile puts a file in the place of another one, as one should.
func replaceFile(t *testing.T, path, text string) {
	t.Helper()
	next := path + ".next"
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
}

// The rotation of docs/operations.md, over a cluster that works all the time: no
// message is lost to a key that somebody does not have yet, or no more.
func TestKeysRotateWithoutDowntime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var nodes []*gossip.Cluster
	files := map[*gossip.Cluster]string{}
	for i := range 3 {
		file := keyFile(t, keyText(oldKey), 0o600)
		var others []string
		if i > 0 {
			others = append(others, nodes[0].Addr())
		}
		cfg := gossip.Config{KeyFile: file}
		if i > 0 {
			cfg = cfg.Meeting()
		}
		c, err := w.tryJoinAs(t.Context(), cfg, bind(t, 0), fmt.Sprint("n", i), others...)
		if err != nil {
			t.Fatal(err)
		}
		nodes, files[c] = append(nodes, c), file
	}
	w.see(3, nodes...)
	l := acquire(t, nodes[0], "kept")
	passRound(t, nodes)
	for _, step := range [][][]byte{{oldKey, newKey}, {newKey, oldKey}, {newKey}} {
		for _, c := range nodes {
			_, changed := c.Keys()
			replaceFile(t, files[c], keyText(step...))
			receive(t, changed, "the keys to change")
			if keys, _ := c.Keys(); !reflect.DeepEqual(keys, step) {
				t.Fatalf("the keys are %x, not %x", keys, step)
			}
			passRound(t, nodes)
		}
	}
	w.see(3, nodes...)
	held(t, l)
	w.awaitLog("changed the keys", 9)
	if lines := w.logged("changed the keys"); len(lines) != 9 || !strings.Contains(lines[8], "keys=1 first="+gossip.Fingerprint(newKey)) {
		t.Errorf("the log says %s", lines)
	}
	w.dropsNothingFor("decrypt")

	w.config.Keys = [][]byte{oldKey}
	outside, err := w.tryJoin(t.Context(), bind(t, 0), "late", nodes[0].Addr())
	if err != nil {
		t.Fatal(err)
	}
	w.awaitLog("dropped what is not for this cluster", 1)
	w.see(1, outside)
	w.see(3, nodes...)
	w.config.Keys = [][]byte{newKey}
	w.see(4, w.join("joins", nodes[0]))
	held(t, l)
}

// Whatever happens to the file, the node goes on with the keys that it has, and
// says once what is wrong.
func TestKeyFileIsFollowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "keys")
	replaceFile(t, file, keyText(oldKey))
	c, err := w.tryJoinAs(t.Context(), gossip.Config{KeyFile: file}, bind(t, 0), "n")
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	link := func(to string) {
		must(os.Symlink(to, file+".next"))
		must(os.Rename(file+".next", file))
	}
	inUse := [][]byte{oldKey}
	changes := 0
	for _, step := range []struct {
		what string
		do   func()
		want [][]byte
	}{
		{"replaced by rename", func() { replaceFile(t, file, keyText(newKey, oldKey)) }, [][]byte{newKey, oldKey}},
		{"written over", func() {
			f, err := os.OpenFile(file, os.O_WRONLY, 0)
			must(err)
			_, err = f.WriteString("# of today\n" + keyText(otherKey, newKey, oldKey))
			must(err)
			must(f.Close())
		}, [][]byte{otherKey, newKey, oldKey}},
		{"rubbish", func() { replaceFile(t, file, "rubbish") }, nil},
		{"truncated", func() { must(os.Truncate(file, 0)) }, nil},
		{"one in the middle removed", func() { replaceFile(t, file, keyText(otherKey, oldKey)) }, [][]byte{otherKey, oldKey}},
		{"readable by others", func() { must(os.Chmod(file, 0o644)) }, nil},
		{"no longer", func() { must(os.Chmod(file, 0o600)) }, [][]byte{otherKey, oldKey}},
		{"removed", func() { must(os.Remove(file)) }, nil},
		{"a directory", func() { link(dir) }, nil},
		{"a link, as to a secret of Kubernetes", func() {
			replaceFile(t, filepath.Join(dir, "first"), keyText(newKey))
			link("first")
		}, [][]byte{newKey}},
		{"the link moves", func() {
			replaceFile(t, filepath.Join(dir, "second"), keyText(oldKey))
			link("second")
		}, [][]byte{oldKey}},
	} {
		t.Log(step.what)
		_, changed := c.Keys()
		errors, mended := len(w.logged("cannot use the key file")), len(w.logged("in order again"))
		step.do()
		switch {
		case step.want == nil:
			w.awaitLog("cannot use the key file", errors+1)
		case reflect.DeepEqual(step.want, inUse):
			w.awaitLog("in order again", mended+1)
		default:
			receive(t, changed, "the keys to change")
			inUse = step.want
			changes++
		}
		if keys, _ := c.Keys(); !reflect.DeepEqual(keys, inUse) {
			t.Fatalf("the keys are %x, not %x", keys, inUse)
		}
		acquire(t, c, "id").Release(t.Context()) // it works
	}
	w.awaitLog("changed the keys", changes) // after the keys have changed
	log := strings.Join(w.logged(""), "")
	for what, want := range map[string]int{
		"changed the keys": changes, "cannot use the key file": 5, "level=ERROR": 5,
		"line 1: it is neither base64 nor hex": 1, "encryption cannot be switched off while the node runs": 1, "its mode is 0644": 1,
		"no such file": 1, "not a regular file": 1,
	} {
		if got := strings.Count(log, what); got != want {
			t.Errorf("the log says %q %d times, not %d:\n%s", what, got, want, log)
		}
	}
	for _, key := range [][]byte{oldKey, newKey, otherKey} {
		if strings.Contains(log, hex.EncodeToString(key)[:8]) {
			t.Errorf("a part of key %x is in the log", key)
		}
	}
}
