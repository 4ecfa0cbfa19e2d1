//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What the tests run as the command. A shell hears a signal while it waits, but
// not while it sleeps.
const (
	forever = `trap 'exit 7' TERM
		echo "$HIGHLANDER_ID runs on $HIGHLANDER_NODE with $HIGHLANDER_TOKEN"
		while :; do sleep 1 & wait; done`

	// Deaf to SIGTERM; a grandchild in a session of its own is, too, and has
	// the pulse as well.
	foreverWithPulse = `exec 9<>"$PULSE"; echo up >&9
		echo "$HIGHLANDER_ID runs on $HIGHLANDER_NODE"
		trap '' TERM
		setsid sleep 1000 &
		while :; do sleep 1; done`
)

// pulse is a pipe that the processes of a command hold open: it ends when the
// last of them is gone.
type pulse struct {
	*output
	path  string
	ended chan struct{}
}

func newPulse(t *testing.T) *pulse {
	t.Helper()
	p := &pulse{output: newOutput(t, "pulse"), path: filepath.Join(t.TempDir(), "pulse"), ended: make(chan struct{})}
	must(t, syscall.Mkfifo(p.path, 0o600))
	go func() {
		defer close(p.ended)
		if pipe, err := os.Open(p.path); err == nil { // waits for the first writer
			p.read(pipe)
			pipe.Close()
		}
	}()
	t.Cleanup(func() {
		// Ends the wait for a writer that never came.
		if pipe, err := os.OpenFile(p.path, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
			pipe.Close()
		}
		<-p.ended
	})
	return p
}

// stops waits until nothing of the command is left.
func (p *pulse) stops() {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(safetyNet):
		p.t.Fatal("something of the command is still alive")
	}
}

// startNode starts highlander run for an id with a script as the command.
func startNode(t *testing.T, url, script string, flags ...string) *process {
	t.Helper()
	p := prepareNode(t, url, script, flags...)
	p.start()
	return p
}

func prepareNode(t *testing.T, url, script string, flags ...string) *process {
	t.Helper()
	args := append([]string{"run", "--id", "hello", "--cluster", url}, flags...)
	return prepare(t, roleHighlander, append(args, "--", "sh", "-c", script)...)
}

// nodeIn returns the name of the node in a line that forever has printed.
func nodeIn(line string) string {
	_, rest, _ := strings.Cut(line, " runs on ")
	node, _, _ := strings.Cut(rest, " ")
	return node
}

func TestThreeTerminalsWithNoConfiguration(t *testing.T) {
	t.Parallel()
	url := "gossip://?label=" + label(t)
	first := startNode(t, url, forever)
	node := nodeIn(first.stdout.next("hello runs on"))
	second := startNode(t, url, forever)
	second.stderr.next("another node holds the id", "holder="+node)
	third := startNode(t, url, forever)
	third.stderr.next("another node holds the id", "holder="+node)

	first.signal(os.Interrupt) // Ctrl-C
	first.exits(7)
	next, last := second, third // first come, first served; but who was that?
	if oneRuns(t, second, third) == third {
		next, last = third, second
	}
	last.stderr.next("another node holds the id")

	next.signal(os.Kill)
	last.stdout.next("hello runs on")
	last.signal(syscall.SIGTERM)
	last.exits(7)
	if n := last.stdout.count("hello runs on"); n != 1 {
		t.Errorf("the last node ran it %d times, not once", n)
	}
}

func TestKilledHighlanderLeavesNothingAndAnotherGoesOn(t *testing.T) {
	t.Parallel()
	urls, pulse := clusterURLs(t, 2), newPulse(t)
	first := prepareNode(t, urls[0], foreverWithPulse)
	first.cmd.Env = append(first.cmd.Env, "PULSE="+pulse.path)
	first.start()
	pulse.next("up")
	node := nodeIn(first.stdout.next("hello runs on"))
	second := startNode(t, urls[1], forever)
	second.stderr.next("another node holds the id", "holder="+node)

	first.signal(os.Kill)
	pulse.stops()
	first.exits(-1)
	second.stdout.next("hello runs on node-2#")
	second.stderr.next("command started", "pid=")
}

func TestStoppedHighlanderLosesItsCommandAndRunsNoSecondOne(t *testing.T) {
	t.Parallel()
	urls, pulse := clusterURLs(t, 2), newPulse(t)
	events := filepath.Join(t.TempDir(), "events")
	first := prepareNode(t, urls[0], foreverWithPulse, "--events", events+"1")
	first.cmd.Env = append(first.cmd.Env, "PULSE="+pulse.path)
	first.start()
	pulse.next("up")
	node := nodeIn(first.stdout.next("hello runs on"))
	second := startNode(t, urls[1], forever, "--events", events+"2")
	second.stderr.next("another node holds the id", "holder="+node)

	first.signal(syscall.SIGSTOP)
	pulse.stops() // while highlander cannot do anything about it
	node = nodeIn(second.stdout.next("hello runs on node-2#"))

	first.signal(syscall.SIGCONT)
	first.stderr.nextEach("lease lost", `"another node holds the id" id=hello holder=`+node)

	// It waits in line, and runs the command again when it is its turn.
	second.signal(syscall.SIGTERM)
	second.exits(7)
	first.stdout.next("hello runs on node-1#")
	first.signal(syscall.SIGTERM)
	first.signal(syscall.SIGTERM) // deaf to the first one
	<-first.ended

	mine, others := readEvents(t, events+"1"), readEvents(t, events+"2")
	const begins = "waiting acquired started lost stopping stopped waiting acquired started"
	if got := kinds(mine); !strings.HasPrefix(got, begins) {
		t.Fatalf("the stopped node's events are %q, not %q ...", got, begins)
	}
	again, stopped := mine[8], others[len(others)-2]
	if stopped.Event != "stopped" || again.Time.Before(stopped.Time) {
		t.Errorf("the woken node started its command at %v, the other one %s at %v", again.Time, stopped.Event, stopped.Time)
	}
	if again.Token <= others[1].Token || others[1].Token <= mine[1].Token {
		t.Errorf("the tokens do not grow: %d, %d, %d", mine[1].Token, others[1].Token, again.Token)
	}
}

// Nobody is there to take over: it goes on where it was.
func TestStoppedHighlanderThatIsAloneRunsItsCommandAgain(t *testing.T) {
	t.Parallel()
	pulse := newPulse(t)
	node := prepareNode(t, clusterURLs(t, 1)[0], foreverWithPulse)
	node.cmd.Env = append(node.cmd.Env, "PULSE="+pulse.path)
	node.start()
	pulse.next("up")
	node.stdout.next("hello runs on")
	node.signal(syscall.SIGSTOP)
	pulse.stops()
	node.signal(syscall.SIGCONT)
	node.stderr.next("was not running for a while")
	node.stdout.next("hello runs on")
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	marker := filepath.Join(t.TempDir(), "marker")
	self := writeFile(t, "self", "#!/bin/sh\necho ran; rm \"$0\"; exit 1\n", 0o755)
	for _, c := range []struct {
		name  string
		flags string
		argv  []string
		code  int
		runs  int
		line  string // the last one on standard error
	}{
		{name: "success", argv: sh("echo ran"), runs: 1},
		{name: "failure", flags: "--restart no", argv: sh("echo ran; exit 3"), code: 3, runs: 1},
		{name: "signal", flags: "--restart no", argv: sh("echo ran; kill -KILL $$"), code: 128 + 9, runs: 1},
		{name: "too many restarts", flags: "--max-restarts 2", argv: sh("echo ran; exit 4"), code: 4, runs: 3},
		{name: "no restarts", flags: "--max-restarts 0", argv: sh("echo ran; exit 5"), code: 5, runs: 1},
		{name: "restarted and then successful", argv: sh("echo ran; test -e " + marker + " || { touch " + marker + "; exit 6; }"), runs: 2},
		{
			name: "too many successes", flags: "--restart always --max-restarts 1", argv: sh("echo ran"), code: 1, runs: 2,
			line: `highlander: too many restarts of child "hello": more than 1 within 5s; the last failure: the child returned nil, but it is permanent`,
		},
		{name: "the command is gone when it is restarted", flags: "--max-restarts 1", argv: []string{self}, code: 127, runs: 1, line: `highlander: command "` + self + `" cannot be started: it, its interpreter or its directory does not exist`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"run", "--id", "hello", "--log-level", "error", "--cluster", alone}, strings.Fields(c.flags)...)
			p := start(t, append(append(args, "--"), c.argv...)...)
			p.exits(c.code)
			if got := p.stdout.count("ran"); got != c.runs {
				t.Errorf("it ran %d times, not %d", got, c.runs)
			}
			if c.line != "" && !strings.HasSuffix(p.stderr.all(), c.line+"\n") {
				t.Errorf("standard error does not end with\n%s", c.line)
			}
		})
	}
}

func sh(script string) []string { return []string{"sh", "-c", script} }

func TestStoppedBySIGTERMItExitsAsTheCommandDoes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		script string
		code   int
	}{
		"with a code of its own": {`trap 'exit 7' TERM; echo up; while :; do sleep 1 & wait; done`, 7},
		"without complaint":      {`trap 'exit 0' TERM; echo up; while :; do sleep 1 & wait; done`, 0},
		"by the signal":          {`echo up; exec sleep 1000`, 128 + 15},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startNode(t, alone, c.script)
			p.stdout.next("up")
			p.signal(syscall.SIGTERM)
			p.exits(c.code)
		})
	}
}

// As systemd does with the processes of a service. The end of the command may be
// seen before highlander's own signal, and is no failure all the same.
func TestSIGTERMToTheCommandTooIsAnOrdinaryStop(t *testing.T) {
	t.Parallel()
	for range 3 {
		events := filepath.Join(t.TempDir(), "events")
		p := startNode(t, alone, `echo up $$; exec sleep 1000`, "--events", events)
		command, err := strconv.Atoi(strings.Fields(p.stdout.next("up"))[1])
		must(t, err)
		p.signal(syscall.SIGSTOP)
		must(t, syscall.Kill(command, syscall.SIGTERM))
		for exists(fmt.Sprintf("/proc/%d", command)) { // until the keeper has buried it
			time.Sleep(time.Millisecond)
		}
		p.signal(syscall.SIGTERM)
		p.signal(syscall.SIGCONT)
		p.exits(128 + 15)
		if got := kinds(readEvents(t, events)); got != "waiting acquired started stopping stopped released" {
			t.Errorf("the events are %q", got)
		}
	}
}

func TestDeafCommandIsKilledWhenItsTimeIsUp(t *testing.T) {
	t.Parallel()
	p := startNode(t, alone, `trap '' TERM; echo up; while :; do sleep 1; done`, "--shutdown", "50ms")
	p.stdout.next("up")
	p.signal(syscall.SIGTERM)
	p.exits(128 + 9)
}

func TestSecondInterruptKillsADeafCommand(t *testing.T) {
	t.Parallel()
	p := startNode(t, alone, `trap '' TERM INT; echo up; while :; do sleep 1; done`, "--shutdown", "10h")
	p.stdout.next("up")
	p.signal(os.Interrupt)
	p.stderr.next("telling the child to stop")
	p.signal(os.Interrupt)
	p.stderr.next("killing the command at the second signal")
	p.exits(128 + 9)
}

func TestSecondInterruptOfAWaitingNodeSpeaksOfNoCommand(t *testing.T) {
	var log bytes.Buffer
	j := &job{log: slog.New(slog.NewTextHandler(&log, nil))}
	ctx, end := context.WithCancel(t.Context())
	signals, stops := make(chan os.Signal), 0
	var passing sync.WaitGroup
	passing.Go(func() { j.passSignals(ctx, signals, false, func() { stops++ }) })
	signals <- syscall.SIGTERM
	signals <- syscall.SIGTERM
	end()
	passing.Wait()
	if got := log.String(); stops != 1 || strings.Contains(got, "killing") || !strings.Contains(got, "there is no command to kill") {
		t.Errorf("stopped %d times; want once, and no word of a killed command in the log:\n%s", stops, got)
	}
}

func TestWaitingNodeStoppedBySIGTERMExitsWith0(t *testing.T) {
	t.Parallel()
	urls := clusterURLs(t, 2)
	first := startNode(t, urls[0], forever)
	first.stdout.next("hello runs on")
	second := startNode(t, urls[1], forever)
	second.stderr.next("another node holds the id")
	second.signal(syscall.SIGTERM)
	second.exits(0)
	if second.stdout.all() != "" {
		t.Error("the waiting node has run the command")
	}
}

func TestNodeThatStillLooksForOthersStopsAtASignal(t *testing.T) {
	t.Parallel()
	p := startNode(t, alone+"?expect=2", forever, "--log-level", "debug")
	p.stderr.next("guard started")
	p.signal(syscall.SIGTERM)
	p.stderr.next("stopping at a signal")
	p.exits(0)
}

func TestWhenDoneExitEachNodeHasItsTurn(t *testing.T) {
	t.Parallel()
	urls := clusterURLs(t, 2)
	gate := filepath.Join(t.TempDir(), "gate")
	must(t, syscall.Mkfifo(gate, 0o600))
	script := "echo up; read line < " + gate
	first := startNode(t, urls[0], script)
	first.stdout.next("up")
	second := startNode(t, urls[1], script)
	second.stderr.next("another node holds the id")
	for _, p := range []*process{first, second} {
		must(t, os.WriteFile(gate, []byte("go\n"), 0))
		p.exits(0)
		if got := p.stdout.all(); got != "up\n" {
			t.Errorf("it printed %q, not once up", got)
		}
	}
}

func TestWhenDoneHoldNoOtherNodeRunsIt(t *testing.T) {
	t.Parallel()
	urls := clusterURLs(t, 2)
	first := startNode(t, urls[0], "echo ran; exit 3", "--restart", "no", "--when-done", "hold")
	first.stderr.next("child is done")
	second := startNode(t, urls[1], "echo ran; exit 3", "--restart", "no")
	second.stderr.next("another node holds the id")
	first.signal(syscall.SIGTERM)
	first.exits(3)
	if !strings.Contains(first.stderr.all(), "lease released") {
		t.Error("the first node did not release the id")
	}
	second.exits(3) // it was free then
	if got := first.stdout.all() + second.stdout.all(); got != "ran\nran\n" {
		t.Errorf("the nodes have printed %q", got)
	}
}

func TestSignalsArePassedOn(t *testing.T) {
	t.Parallel()
	script := "while :; do sleep 1 & wait; done"
	for _, name := range []string{"HUP", "QUIT", "USR1", "USR2", "WINCH"} {
		script = "trap 'echo got " + name + "' " + name + "\n" + script
	}
	p := startNode(t, alone, strings.Replace(script, "while", "echo up\nwhile", 1))
	p.stdout.next("up")
	for i, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH} {
		name := []string{"HUP", "QUIT", "USR1", "USR2", "WINCH"}[i]
		p.signal(sig)
		p.stdout.next("got " + name)
	}
	p.signal(syscall.SIGTERM)
	p.exits(128 + 15)
}

func TestCommandHasTheStandardStreamsToItself(t *testing.T) {
	t.Parallel()
	p := prepareNode(t, alone, "cat; echo problem >&2", "--log-level", "error")
	in, err := p.cmd.StdinPipe()
	must(t, err)
	p.start()
	_, err = io.WriteString(in, "from standard input\n")
	must(t, err)
	must(t, in.Close())
	p.exits(0)
	if out, log := p.stdout.all(), p.stderr.all(); out != "from standard input\n" || log != "problem\n" {
		t.Errorf("standard output is %q, standard error %q", out, log)
	}
}

func TestCommandFindsItsLeaseInTheEnvironment(t *testing.T) {
	t.Parallel()
	// A highlander in a highlander: the inner one's lease counts.
	inner := `exec "$0" run --id inner --cluster ` + alone + ` -- env`
	events := filepath.Join(t.TempDir(), "events")
	p := start(t, "run", "--id", "outer", "--cluster", alone, "--events", events, "--", "sh", "-c",
		`echo "$HIGHLANDER_ID $HIGHLANDER_NODE $HIGHLANDER_TOKEN"; `+inner, os.Args[0])
	p.exits(0)
	started := readEvents(t, events)[2]
	outer, rest, _ := strings.Cut(p.stdout.all(), "\n")
	if want := strings.Join([]string{"outer", started.Node, strconv.FormatUint(started.Token, 10)}, " "); outer != want {
		t.Errorf("the command has %q in its environment, not %q", outer, want)
	}
	for _, name := range []string{"ID", "NODE", "TOKEN"} {
		if n := strings.Count(rest, "HIGHLANDER_"+name+"="); n != 1 {
			t.Errorf("the inner command has HIGHLANDER_%s %d times in its environment", name, n)
		}
	}
	if !strings.Contains(rest, "HIGHLANDER_ID=inner\n") {
		t.Error("the inner command has not its own id in its environment")
	}
}

func TestEventsTellTheStoryInOrder(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		script, flags, story string
		causes               map[int]string
	}{
		"stopped": {
			script: `echo up; exec sleep 1000`, story: "waiting acquired started stopping stopped released",
			causes: map[int]string{3: "highlander: shutdown", 4: "the command was ended by signal terminated"},
		},
		"failed too often": {
			script: `exit 3`, flags: "--max-restarts 1", story: "waiting acquired started failed started failed gave-up released",
			causes: map[int]string{3: "the command exited with code 3", 5: "the command exited with code 3"},
		},
		"done": {script: `exit 0`, story: "waiting acquired started done released"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "events")
			p := startNode(t, alone+"?name=me", c.script, append(strings.Fields(c.flags), "--events", file)...)
			if name == "stopped" {
				p.stdout.next("up")
				p.signal(syscall.SIGTERM)
			}
			<-p.ended
			events := readEvents(t, file)
			if got := kinds(events); got != c.story {
				t.Fatalf("the events are %q, not %q", got, c.story)
			}
			for i, e := range events {
				if e.ID != "hello" || !strings.HasPrefix(e.Node, "me#") || e.Time.IsZero() || (e.Token == 0) != (e.Event == "waiting") {
					t.Errorf("event %d lacks something: %+v", i, e)
				}
				if i > 0 && e.Time.Before(events[i-1].Time) {
					t.Errorf("event %d is before the one that it follows", i)
				}
				if cause, ok := c.causes[i]; ok && e.Cause != cause {
					t.Errorf("the cause of event %d, %s, is %q, not %q", i, e.Event, e.Cause, cause)
				}
			}
		})
	}
}

func TestEventsAreAppended(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "events")
	for range 2 {
		startNode(t, alone, "true", "--events", file).exits(0)
	}
	if n := len(readEvents(t, file)); n != 10 {
		t.Errorf("there are %d events of two runs, not 10", n)
	}
}

func TestLogIsJSONOnRequestAndOnStandardErrorOnly(t *testing.T) {
	t.Parallel()
	p := startNode(t, alone, "exit 3", "--restart", "no", "--log-format", "json", "--log-level", "debug")
	p.exits(3)
	messages := map[string]bool{}
	for line := range strings.Lines(p.stderr.all()) {
		var entry struct{ Time, Level, Msg string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Time == "" || entry.Level == "" {
			t.Errorf("%q is not an entry of a log: %v", line, err)
		}
		messages[entry.Msg] = true
	}
	for _, want := range []string{"lease acquired", "child started", "command started", "command ended", "lease released"} {
		if !messages[want] {
			t.Errorf("the log does not say %q", want)
		}
	}
	if out := p.stdout.all(); out != "" {
		t.Errorf("standard output has %q", out)
	}
}
