package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"highlander/cmd/highlander/internal/guard"
)

// The tests run real processes: this binary is highlander, its guards and its
// nodes in turn. What it is beyond that, a variable says.
const (
	roleEnv        = "HIGHLANDER_TEST_ROLE"
	roleHighlander = "highlander"
)

// roles are what else this binary can be in a test.
var roles = map[string]func(){
	roleHighlander: func() { os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr)) },
}

// atEnd is called when all tests have ended.
var atEnd []func()

func TestMain(m *testing.M) {
	guard.Main()
	lyingNodeMain()
	nodeMain()
	if role := roles[os.Getenv(roleEnv)]; role != nil {
		role()
	}
	os.Unsetenv(clusterEnv)
	flag.Parse()
	if given := flag.Lookup("test.parallel"); given.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		flag.Set("test.parallel", "4") // they wait for processes most of the time
	}
	code := m.Run()
	for _, end := range atEnd {
		end()
	}
	os.Exit(code)
}

// safetyNet is when a test gives up. Nothing is expected to take as long, also on
// a machine that does twenty other things.
const safetyNet = 3 * time.Minute

// process is a program that a test has started, this one in a role.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout *output
	stderr *output
	ended  chan struct{} // it has ended, and nobody is left who could write
}

// prepare makes a process that is not started yet.
func prepare(t *testing.T, role string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(os.Args[0], args...), ended: make(chan struct{})}
	// The race detector makes a program that exits with 0 wait for a second.
	p.cmd.Env = append(os.Environ(), roleEnv+"="+role, "GORACE="+os.Getenv("GORACE")+" atexit_sleep_ms=0")
	p.stdout, p.stderr = newOutput(t, "stdout"), newOutput(t, "stderr")
	return p
}

// start starts highlander.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	p := prepare(t, roleHighlander, args...)
	p.start()
	return p
}

func (p *process) start() {
	p.t.Helper()
	out, err := p.cmd.StdoutPipe()
	must(p.t, err)
	log, err := p.cmd.StderrPipe()
	must(p.t, err)
	must(p.t, p.cmd.Start())
	go func() {
		var reading sync.WaitGroup
		reading.Go(func() { p.stdout.read(out) })
		reading.Go(func() { p.stderr.read(log) })
		reading.Wait() // until the last process that has the pipes is gone
		p.cmd.Wait()
		close(p.ended)
	}()
	p.t.Cleanup(func() {
		p.cmd.Process.Kill()
		p.await(p.ended, "the process and all it started to end")
		if p.t.Failed() {
			p.t.Logf("%q\n%s%s", p.cmd.Args[1:], p.stdout.all(), p.stderr.all())
		}
	})
}

func (p *process) await(c <-chan struct{}, what string) {
	p.t.Helper()
	select {
	case <-c:
	case <-time.After(safetyNet):
		p.t.Fatalf("gave up waiting for %s", what)
	}
}

// exits waits until the process and everything that it started are gone, and
// checks its code.
func (p *process) exits(code int) {
	p.t.Helper()
	p.await(p.ended, "the process and all it started to end")
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		p.t.Errorf("%q exited with %d, not %d", p.cmd.Args[1:], got, code)
	}
}

// signal sends a signal to the process alone.
func (p *process) signal(sig os.Signal) {
	p.t.Helper()
	must(p.t, p.cmd.Process.Signal(sig))
}

// output is what a process writes, line by line.
type output struct {
	t    *testing.T
	name string

	mu    sync.Mutex
	lines []string
	seen  int // by next
	eof   bool
	more  chan struct{} // closed when there is more
}

func newOutput(t *testing.T, name string) *output {
	return &output{t: t, name: name, more: make(chan struct{})}
}

func (o *output) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		o.add(lines.Text(), false)
	}
	o.add("", true)
}

func (o *output) add(line string, eof bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.eof = eof; !eof {
		o.lines = append(o.lines, line)
	}
	close(o.more)
	o.more = make(chan struct{})
}

// next waits for the next line with all of the words in it and returns it. The
// lines up to it will not be looked at again.
func (o *output) next(words ...string) string {
	o.t.Helper()
	net := time.After(safetyNet)
	for {
		line, found, more := o.take(words)
		switch {
		case found:
			return line
		case more == nil:
			o.t.Fatalf("%s ended without another line with %q:\n%s", o.name, words, o.all())
		}
		select {
		case <-more:
		case <-net:
			o.t.Fatalf("gave up waiting for a line on %s with %q:\n%s", o.name, words, o.all())
		}
	}
}

// nextEach waits for lines with each of the words, which come in any order.
func (o *output) nextEach(words ...string) {
	o.t.Helper()
	for len(words) > 0 {
		line := o.next()
		words = slices.DeleteFunc(words, func(word string) bool { return strings.Contains(line, word) })
	}
}

// has waits for a line with all of the words in it, which may have been written
// before: what several processes have to do with comes in any order.
func (o *output) has(words ...string) {
	o.t.Helper()
	from := &output{t: o.t, name: o.name}
	for net := time.After(safetyNet); ; {
		o.mu.Lock()
		from.lines, from.eof, from.more = o.lines, o.eof, o.more
		o.mu.Unlock()
		_, found, more := from.take(words)
		switch {
		case found:
			return
		case more == nil:
			o.t.Fatalf("%s ended without a line with %q:\n%s", o.name, words, o.all())
		}
		select {
		case <-more:
		case <-net:
			o.t.Fatalf("gave up waiting for a line on %s with %q:\n%s", o.name, words, o.all())
		}
	}
}

// take is next without the waiting; more is nil at the end.
func (o *output) take(words []string) (line string, found bool, more <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.seen < len(o.lines) {
		line := o.lines[o.seen]
		o.seen++
		if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) }) {
			return line, true, nil
		}
	}
	if o.eof {
		return "", false, nil
	}
	return "", false, o.more
}

// all returns everything that was written up to now.
func (o *output) all() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.lines) == 0 {
		return ""
	}
	return strings.Join(o.lines, "\n") + "\n"
}

// count returns how many of the lines up to now have word in them.
func (o *output) count(word string) int { return strings.Count(o.all(), word) }

// clusterURLs returns the URLs of n nodes that form a cluster of their own.
func clusterURLs(t *testing.T, n int) []string {
	t.Helper()
	addrs := freeAddrs(t, n)
	urls := make([]string, n)
	for i, addr := range addrs {
		urls[i] = fmt.Sprintf("gossip://%s?label=%s&name=node-%d&join=%s", addr, label(t), i+1, strings.Join(addrs, ","))
	}
	return urls
}

// alone is the URL of a cluster of one.
const alone = "gossip://127.0.0.1:0"

// label returns a label for the cluster of a test.
func label(t *testing.T) string {
	return fmt.Sprintf("%s-%d", strings.ReplaceAll(t.Name(), "/", "-"), os.Getpid())
}

// freeAddrs returns addresses on loopback whose ports are free, TCP and UDP.
func freeAddrs(t *testing.T, n int) []string {
	t.Helper()
	ip := loopbackIP()
	var addrs []string
	for len(addrs) < n {
		tcp, err := net.Listen("tcp", ip+":0")
		must(t, err)
		defer tcp.Close()
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		if err != nil {
			continue
		}
		defer udp.Close()
		addrs = append(addrs, tcp.Addr().String())
	}
	return addrs
}

// readEvents returns what --events has written to a file, each line of which
// must be an event.
func readEvents(t *testing.T, file string) []eventLine {
	t.Helper()
	text, err := os.ReadFile(file)
	must(t, err)
	var events []eventLine
	for line := range bytes.Lines(text) {
		var e eventLine
		lines := json.NewDecoder(bytes.NewReader(line))
		lines.DisallowUnknownFields()
		if err := lines.Decode(&e); err != nil {
			t.Fatalf("%s: %q: %v", file, line, err)
		}
		events = append(events, e)
	}
	return events
}

func kinds(events []eventLine) string {
	var names []string
	for _, e := range events {
		names = append(names, e.Event)
	}
	return strings.Join(names, " ")
}

// writeFile makes a file in a directory of the test's own.
func writeFile(t *testing.T, name, text string, mode os.FileMode) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(path, []byte(text), mode))
	must(t, os.Chmod(path, mode))
	return path
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, os.ErrNotExist)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
