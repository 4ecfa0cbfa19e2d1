//go:build unix

package main

import (
	"encoding/hex"
	"os"
	"strings"
	"syscall"
	"testing"
)

// The key is changed in three steps on nodes that run. The command of the holder
// goes on over all of them; then the other node takes over, with the new key.
func TestKeyIsChangedWhileACommandRuns(t *testing.T) {
	t.Parallel()
	key := func(b string) string { return hex.EncodeToString([]byte(strings.Repeat(b, 32))) + "\n" }
	before, after := key("a"), key("b")
	urls := clusterURLs(t, 2)
	var nodes []*process
	var files []string
	for i, url := range urls {
		files = append(files, writeFile(t, "highlander.key", before, 0o600))
		nodes = append(nodes, startNode(t, url+"&key-file="+files[i], forever))
		if i == 0 {
			nodes[0].stdout.next("runs on")
		}
	}
	holder, waits := nodes[0], nodes[1]
	waits.stderr.next("another node holds the id")
	for _, step := range []string{before + after, after + before, after} {
		for i, file := range files {
			must(t, os.WriteFile(file+".next", []byte(step), 0o600))
			must(t, os.Rename(file+".next", file))
			nodes[i].stderr.next("changed the keys")
		}
	}
	if n := holder.stdout.count("runs on") + waits.stdout.count("runs on"); n != 1 {
		t.Errorf("the command was started %d times", n)
	}
	holder.signal(syscall.SIGTERM)
	holder.exits(7)
	waits.stdout.next("runs on")
	for _, p := range nodes {
		for _, bad := range []string{"dropped", "given up", "cannot use"} {
			if log := p.stderr.all(); strings.Contains(log, bad) {
				t.Errorf("%q in the log:\n%s", bad, log)
			}
		}
		for _, secret := range []string{before[:8], after[:8]} {
			if strings.Contains(p.stderr.all(), secret) {
				t.Error("a part of a key is in the log")
			}
		}
	}
}
