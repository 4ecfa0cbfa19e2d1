//go:build unix

package gossip_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"highlander"
	"highlander/internal/boottime"
)

// process is a replica in a process of its own.
type process struct {
	t     *testing.T
	name  string
	addr  string
	cmd   *exec.Cmd
	lines chan string // but what it watches

	mu      sync.Mutex
	watches map[string]bool
	changed chan struct{} // closed when watches changes
}

// replicaProcess starts a process that joins those given, and waits until it has.
func replicaProcess(t *testing.T, name string, env []string, others ...*process) *process {
	t.Helper()
	p := startProcess(t, name, freeAddr(t), env, others...)
	p.says("joined ")
	return p
}

// freeAddr returns an address for a process.
func freeAddr(t *testing.T) string {
	t.Helper()
	transport := bind(t, 0)
	transport.Shutdown()
	return addrOf(transport)
}

func startProcess(t *testing.T, name, addr string, env []string, others ...*process) *process {
	t.Helper()
	var addrs []string
	for _, other := range others {
		addrs = append(addrs, other.addr)
	}
	p := &process{t: t, name: name, addr: addr, cmd: exec.Command(os.Args[0]), lines: make(chan string, 100), watches: map[string]bool{}, changed: make(chan struct{})}
	p.cmd.Env = append(append(os.Environ(), childEnv+"="+name, childBindEnv+"="+addr, childJoinEnv+"="+strings.Join(addrs, " ")), env...)
	var log testLog
	p.cmd.Stderr = &log
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(p.lines)
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			if name, ok := strings.CutPrefix(scanner.Text(), "watches "); ok {
				p.nowWatches(name)
			} else {
				p.lines <- scanner.Text()
			}
		}
	}()
	t.Cleanup(func() {
		stdin.Close()
		p.cmd.Process.Kill()
		for range p.lines {
		}
		<-read
		p.cmd.Wait()
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, log.text.Bytes())
		}
	})
	return p
}

// says waits for a line of the process, which has to be the next one.
func (p *process) says(prefix string) string {
	p.t.Helper()
	line := receive(p.t, p.lines, fmt.Sprintf("%s to say %q", p.name, prefix))
	if !strings.HasPrefix(line, prefix) {
		p.t.Fatalf("%s says %q, want %q", p.name, line, prefix)
	}
	return line
}

// saysNothing checks that the process has said nothing more.
func (p *process) saysNothing() {
	p.t.Helper()
	select {
	case line := <-p.lines:
		p.t.Errorf("%s says %q, want nothing", p.name, line)
	default:
	}
}

func (p *process) signal(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) nowWatches(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watches[name] = true
	close(p.changed)
	p.changed = make(chan struct{})
}

// watchEachOther waits until all of the processes watch all others.
func watchEachOther(t *testing.T, processes ...*process) {
	t.Helper()
	for _, p := range processes {
		for all := false; !all; {
			p.mu.Lock()
			all = len(p.watches) == len(processes)-1
			changed := p.changed
			p.mu.Unlock()
			if !all {
				receive(t, changed, p.name+" to watch the others")
			}
		}
	}
}

// oneStarts waits until one of two processes says that its child has started,
// and returns it first.
func oneStarts(t *testing.T, p, q *process) (holder, other *process) {
	t.Helper()
	select {
	case line := <-p.lines:
		holder, other = p, q
		if line != "started" {
			t.Fatalf("%s says %q, want started", p.name, line)
		}
	case line := <-q.lines:
		holder, other = q, p
		if line != "started" {
			t.Fatalf("%s says %q, want started", q.name, line)
		}
	case <-time.After(patience):
		t.Fatal("no child has started")
	}
	return holder, other
}

func TestProcessesKillOfTheHolder(t *testing.T) {
	t.Parallel()
	a := replicaProcess(t, "a", nil)
	a.says("started")
	b := replicaProcess(t, "b", nil, a)
	c := replicaProcess(t, "c", nil, a)
	watchEachOther(t, a, b, c)
	a.signal(syscall.SIGKILL)
	holder, other := oneStarts(t, b, c)
	other.saysNothing()
	holder.signal(syscall.SIGKILL)
	other.says("started")
}

func TestProcessesHandOver(t *testing.T) {
	t.Parallel()
	a := replicaProcess(t, "a", nil)
	a.says("started")
	b := replicaProcess(t, "b", nil, a)
	b.saysNothing()
	a.signal(syscall.SIGTERM)
	a.says("stopping: " + highlander.ErrShutdown.Error())
	b.says("started")
	a.says("closed")
}

// A frozen holder is taken for gone. When it wakes it learns that, and its
// child ends; it is never the other one's.
func TestProcessesFrozenHolderWakes(t *testing.T) {
	t.Parallel()
	a := replicaProcess(t, "a", nil)
	a.says("started")
	b := replicaProcess(t, "b", nil, a)
	c := replicaProcess(t, "c", nil, a)
	a.signal(syscall.SIGSTOP)
	holder, other := oneStarts(t, b, c)
	a.signal(syscall.SIGCONT)
	a.says("stopping: " + highlander.ErrConflict.Error())
	holder.saysNothing()
	other.saysNothing()
	a.saysNothing()
}

// Without a failure detector, the tripwire alone says that a process is gone:
// and of two nodes, one that is silent has no majority to be passed over by.
func TestProcessesTripwire(t *testing.T) {
	t.Parallel()
	blind := []string{childBlindEnv + "=yes"}
	a := replicaProcess(t, "a", blind)
	a.says("started")
	b := replicaProcess(t, "b", blind, a)
	watchEachOther(t, a, b)
	a.signal(syscall.SIGKILL)
	b.says("started")
}

// quorumProcesses starts processes in quorum mode, and waits until the child of
// one has started, which comes first.
func quorumProcesses(t *testing.T) (holder *process, started time.Duration, others []*process) {
	t.Helper()
	var all []*process
	for _, name := range []string{"a", "b", "c"} {
		all = append(all, &process{name: name, addr: freeAddr(t)})
	}
	for i, p := range all {
		all[i] = startProcess(t, p.name, p.addr, []string{childQuorumEnv + "=yes"}, all...)
	}
	for _, p := range all {
		p.says("joined ")
	}
	return firstToStart(t, all...)
}

// firstToStart waits until the child of one of several processes has started.
func firstToStart(t *testing.T, processes ...*process) (holder *process, started time.Duration, others []*process) {
	t.Helper()
	var cases []reflect.SelectCase
	for _, p := range processes {
		cases = append(cases, reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(p.lines)})
	}
	cases = append(cases, reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(time.After(patience))})
	i, line, _ := reflect.Select(cases)
	if i == len(processes) {
		t.Fatal("no child has started")
	}
	holder = processes[i]
	if !strings.HasPrefix(line.String(), "started ") {
		t.Fatalf("%s says %q, want started", holder.name, line)
	}
	return holder, lastNumber(t, line.String()), slices.DeleteFunc(slices.Clone(processes), func(p *process) bool { return p == holder })
}

// lastNumber returns the moment at the end of a line.
func lastNumber(t *testing.T, line string) time.Duration {
	t.Helper()
	n, err := strconv.ParseInt(line[strings.LastIndex(line, " ")+1:], 10, 64)
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return time.Duration(n)
}

// A crash is waited out: nobody else has the id before the lease has run out.
func TestProcessesQuorumKillOfTheHolder(t *testing.T) {
	t.Parallel()
	holder, _, others := quorumProcesses(t)
	lasts(childTTL) // so that the lease has been renewed
	killed := boottime.Now()
	holder.signal(syscall.SIGKILL)
	next, at, rest := firstToStart(t, others...)
	t.Logf("%s holds the id %v after the kill of its holder; TTL %v", next.name, (at - killed).Round(time.Millisecond), childTTL)
	rest[0].saysNothing()
}

func TestProcessesQuorumHandOver(t *testing.T) {
	t.Parallel()
	holder, _, others := quorumProcesses(t)
	holder.signal(syscall.SIGTERM)
	last := lastNumber(t, holder.says("stopping: "+highlander.ErrShutdown.Error()))
	next, at, _ := firstToStart(t, others...)
	t.Logf("%s holds the id %v after its holder has acted last", next.name, at-last)
	if at < last {
		t.Errorf("it held the id %v before that", last-at)
	}
	holder.says("closed")
}

// A process that was frozen for longer than the TTL does not act on its lease when
// it wakes.
func TestProcessesQuorumFrozenHolderWakes(t *testing.T) {
	t.Parallel()
	holder, _, others := quorumProcesses(t)
	for range 3 {
		holder.signal(syscall.SIGSTOP)
		next, at, _ := firstToStart(t, others...)
		holder.signal(syscall.SIGCONT)
		last := lastNumber(t, holder.says("stopping: "+highlander.ErrLeaseLost.Error()))
		if last >= at {
			t.Errorf("%s has acted %v after %s has got the id", holder.name, last-at, next.name)
		}
		others = append(slices.DeleteFunc(others, func(p *process) bool { return p == next }), holder)
		holder = next
	}
}
