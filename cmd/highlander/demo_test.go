package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const (
	lieEnv    = "HIGHLANDER_TEST_LIE"  // how the nodes lie
	onceEnv   = "HIGHLANDER_TEST_ONCE" // a file for lies that need to remember
	roleHasty = "hasty highlander"     // waits less long in the demo
)

func init() {
	roles[roleHasty] = func() {
		demoLimit = 8 * time.Second
		roles[roleHighlander]()
	}
}

// lies are what nodes tell that do not do what they should, instead of what
// happened.
var lies = map[string]func(e nodeEvent) []nodeEvent{
	"it does not stop": func(e nodeEvent) []nodeEvent {
		if e.Event == evStopped {
			return nil
		}
		return []nodeEvent{e}
	},
	"no other takes over": func(e nodeEvent) []nodeEvent {
		if e.Event == evStarted {
			if _, err := os.OpenFile(os.Getenv(onceEnv), os.O_CREATE|os.O_EXCL, 0o600); err != nil {
				return nil
			}
		}
		return []nodeEvent{e}
	},
	"it goes on": func(e nodeEvent) []nodeEvent {
		if e.Event == evStopped {
			return []nodeEvent{e, {Event: evStarted, At: e.At, ID: e.ID}}
		}
		return []nodeEvent{e}
	},
	"two start": func(e nodeEvent) []nodeEvent {
		if e.Event == evMembers && e.Count == 3 { // which the demo waits for, so all have lied by then
			return []nodeEvent{{Event: evStarted, At: e.At, ID: demoID}, e}
		}
		return []nodeEvent{e}
	},
	"the other starts early": func(e nodeEvent) []nodeEvent {
		if e.Event == evStarted {
			e.At -= time.Hour
		}
		return []nodeEvent{e}
	},
	"it is not told why": func(e nodeEvent) []nodeEvent {
		if e.Event == evStopped {
			e.Cause = causeLost
		}
		return []nodeEvent{e}
	},
	"the loser is not told of the conflict": func(e nodeEvent) []nodeEvent {
		if e.Cause == causeConflict {
			e.Cause = causeShutdown
		}
		return []nodeEvent{e}
	},
	"it crashes": func(e nodeEvent) []nodeEvent {
		if e.Event == evStopped {
			os.Exit(1)
		}
		return []nodeEvent{e}
	},
	"it reports a failure": func(e nodeEvent) []nodeEvent {
		if e.Event == evReady {
			return []nodeEvent{{Event: evFailed, Message: "something is wrong"}}
		}
		return []nodeEvent{e}
	},
}

// lyingNodeMain becomes a node that lies, in a process started as one.
func lyingNodeMain() {
	lie := lies[os.Getenv(lieEnv)]
	if lie == nil || len(os.Args) != 2 || os.Args[1] != nodeMode {
		return
	}
	r, w := io.Pipe()
	go func() {
		events, told := json.NewDecoder(r), json.NewEncoder(os.Stdout)
		for {
			var e nodeEvent
			if events.Decode(&e) != nil {
				return
			}
			for _, e := range lie(e) {
				told.Encode(e)
			}
		}
	}()
	newNode(w).run(os.Stdin)
	os.Exit(0)
}

func TestDemoTellsItsStoryAndEndsWithATable(t *testing.T) {
	t.Parallel()
	demo := start(t, "demo")
	for _, want := range []string{
		"Starting three node processes", "runs the child; node-", "gracefully", "cleaned up and released",
		"SIGKILL", "after the kill", "node-4 joined", "Cutting the network", "both run the child", "Healing", "never noticed",
	} {
		demo.stdout.next(want)
	}
	demo.exits(0)
	const row = `(?m)^ *%s  +\d+(\.\d\d)? (ms|s)$`
	for _, want := range []string{
		"three nodes started -> one runs the child", "graceful hand-over: child returned -> running elsewhere", "kill -9 -> running elsewhere",
		"netsplit -> the other side runs the child, too", "healed -> one left",
	} {
		if !regexp.MustCompile(strings.Replace(row, "%s", regexp.QuoteMeta(want), 1)).MatchString(demo.stdout.all()) {
			t.Errorf("the table has no %q", want)
		}
	}
	if strings.ContainsAny(demo.stdout.all(), "\x1b\r") {
		t.Error("there are codes for a terminal in the pipe")
	}
	if log := demo.stderr.all(); log != "" {
		t.Errorf("it writes to standard error: %q", log)
	}
}

func TestDemoFailsWhenSomethingDoesNotHold(t *testing.T) {
	t.Parallel()
	for lie, want := range map[string]string{
		"it does not stop":                      `graceful hand-over: waiting for another node to run the child: it took more than 8s`,
		"no other takes over":                   `graceful hand-over: waiting for another node to run the child: it took more than 8s`,
		"it goes on":                            `(graceful hand-over: waiting for another node to run the child: it took more than 8s|(graceful hand-over|heal): 2 nodes run the child, not node-\d alone)`,
		"two start":                             `start: waiting for exactly one node to run the child: it took more than 8s`,
		"the other starts early":                `graceful hand-over: node-\d started the child \S+ before that of node-\d had stopped`,
		"it is not told why":                    `graceful hand-over: the child of node-\d was told "lease lost", not "shutdown"`,
		"the loser is not told of the conflict": `heal: the child of node-\d was told "shutdown", not "conflict"`,
		"it crashes":                            `graceful hand-over: waiting for another node to run the child: node-\d ended by itself`,
		"it reports a failure":                  `start: waiting for node-1 to join: node-1: something is wrong`,
	} {
		t.Run(lie, func(t *testing.T) {
			t.Parallel()
			role := roleHighlander
			if strings.Contains(want, "8s") {
				role = roleHasty // it waits in vain
			}
			demo := prepare(t, role, "demo")
			demo.cmd.Env = append(demo.cmd.Env, lieEnv+"="+lie, onceEnv+"="+filepath.Join(t.TempDir(), "once"))
			demo.start()
			demo.exits(1)
			if got := demo.stderr.all(); !regexp.MustCompile(`^highlander: the demo failed: ` + want + `\n$`).MatchString(got) {
				t.Errorf("it says %q, not %q", got, want)
			}
			if strings.Contains(demo.stdout.all(), "healed -> one left") {
				t.Error("it prints the table all the same")
			}
		})
	}
}
