//go:build linux

package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Part is a process of a node.
type Part string

const (
	Highlander Part = "highlander"
	Guard      Part = "guard"
	Keeper     Part = "keeper"
)

// Node is a machine of the lab, with at most one highlander on it at a time.
// Its methods may be called concurrently.
type Node struct {
	Name   string
	lab    *Lab
	number int
	ns     *namespace
	log    *os.File
	events string

	mu      sync.Mutex
	current *instance
}

// instance is one highlander process of a node.
type instance struct {
	Process // guarded by the node's mu
	node    *Node
	cmd     *exec.Cmd
	ended   chan struct{}
}

// Start starts highlander; the node must have none.
func (n *Node) Start(how Child) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(n.lab.binary, "run", "--id", "lab", "--cluster", n.lab.clusterURL(n), "--events", n.events,
		"--shutdown", n.lab.cfg.Shutdown.String(), "--restart", "always", "--max-restarts", "1000000", "--",
		exe, childMode, "-ledger="+n.lab.path("ledger"), "-lock="+n.lab.path("lock"))
	cmd.Args = append(cmd.Args, how.args()...)
	cmd.Env = append(os.Environ(), markEnv+"="+n.lab.mark)
	cmd.Stdout, cmd.Stderr = n.log, n.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.current != nil && n.current.Exited == 0 {
		return fmt.Errorf("%s: highlander runs already", n.Name)
	}
	fmt.Fprintf(n.log, "---- %v: highlander starts, its child: %v\n", n.lab.stamp(now()), how)
	i := &instance{node: n, cmd: cmd, ended: make(chan struct{})}
	i.Node, i.Started = n.Name, now()
	if err := n.ns.start(cmd); err != nil {
		return fmt.Errorf("%s: start highlander: %w", n.Name, err)
	}
	i.PID = cmd.Process.Pid
	n.current = i
	n.lab.remember(i)
	n.lab.helpers.Go(func() { n.bury(i) })
	return nil
}

func (n *Node) bury(i *instance) {
	_ = i.cmd.Wait()
	n.mu.Lock()
	i.Exited, i.How = now(), i.cmd.ProcessState.String()
	n.mu.Unlock()
	close(i.ended)
	n.lab.wake()
}

// Up says whether highlander runs, or is frozen.
func (n *Node) Up() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.current != nil && n.current.Exited == 0
}

// age is how long highlander has been running.
func (n *Node) age() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return now() - n.current.Started
}

// Ended is closed when the highlander that runs, or ran last, has ended.
func (n *Node) Ended() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.current.ended
}

// endWithin is how long the lab waits for the end of a highlander that was told
// to end: far longer than it may take.
const endWithin = 40 * time.Second

// awaitEnd waits for the end of highlander. One that does not end writes its
// stacks into the log.
func (n *Node) awaitEnd(ctx context.Context) error {
	timeout := time.NewTimer(endWithin)
	defer timeout.Stop()
	select {
	case <-n.Ended():
		return nil
	case <-timeout.C:
	case <-ctx.Done():
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	_ = n.current.cmd.Process.Signal(syscall.SIGABRT)
	return fmt.Errorf("%s: highlander, process %d, does not end; see the stacks in its log", n.Name, n.current.PID)
}

// Terminate sends SIGTERM to highlander.
func (n *Node) Terminate() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.current.Termed = now()
	return n.current.cmd.Process.Signal(syscall.SIGTERM)
}

// Kill sends SIGKILL to parts of the node at once.
func (n *Node) Kill(parts ...Part) error {
	targets, err := n.find(parts)
	if err != nil {
		return err
	}
	defer targets.close()
	n.mu.Lock()
	for _, part := range parts {
		if part == Highlander {
			n.current.Killed = now()
		}
	}
	n.mu.Unlock()
	return targets.signal(unix.SIGKILL)
}

// Freeze stops parts of the node with SIGSTOP until thaw is called. Thawing
// what has been killed meanwhile does nothing.
func (n *Node) Freeze(parts ...Part) (thaw func() error, err error) {
	targets, err := n.find(parts)
	if err != nil {
		return nil, err
	}
	if err := targets.signal(unix.SIGSTOP); err != nil {
		targets.close()
		return nil, err
	}
	return func() error {
		defer targets.close()
		return targets.signal(unix.SIGCONT)
	}, nil
}

// targets are processes to be hit together.
type targets []handle

func (ts targets) signal(sig unix.Signal) error {
	for _, t := range ts {
		if err := t.signal(sig); err != nil {
			return err
		}
	}
	return nil
}

func (ts targets) close() {
	for _, t := range ts {
		t.close()
	}
}

// find opens parts of the node. It fails when one is not there, as for a moment
// after it was killed.
func (n *Node) find(parts []Part) (found targets, err error) {
	pids, err := n.pids()
	if err != nil {
		return nil, err
	}
	for _, part := range parts {
		h, err := openHandle(pids[part])
		if err != nil {
			found.close()
			return nil, fmt.Errorf("%s: no %s: %w", n.Name, part, err)
		}
		found = append(found, h)
	}
	return found, nil
}

func (n *Node) pids() (map[Part]int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.current == nil || n.current.Exited != 0 {
		return nil, fmt.Errorf("%s: highlander does not run", n.Name)
	}
	pids := map[Part]int{Highlander: n.current.PID}
	if guard, ok := childNamed(n.current.PID, "hl-guard"); ok {
		pids[Guard] = guard
		if keeper, ok := childNamed(guard, "hl-keeper"); ok {
			pids[Keeper] = keeper
		}
	}
	return pids, nil
}

func (n *Node) open(dir string) (err error) {
	n.events = filepath.Join(dir, n.Name+".events")
	n.log, err = os.OpenFile(filepath.Join(dir, n.Name+".log"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	return err
}

// close ends what runs on the node, and the node.
func (n *Node) close() {
	n.mu.Lock()
	i := n.current
	n.mu.Unlock()
	if i != nil {
		_ = i.cmd.Process.Kill()
		_ = i.cmd.Process.Signal(syscall.SIGCONT)
		<-i.ended
	}
	n.ns.close()
	n.log.Close()
}

// stamp is a time of the ledger for people: since the lab began.
func (l *Lab) stamp(at time.Duration) string {
	return fmt.Sprintf("%8.3f s", (at - l.begin).Seconds())
}

// LogTail returns the end of what the node's processes have logged.
func (n *Node) LogTail(most int64) string {
	text, err := os.ReadFile(n.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, int64(len(text))-most):])
}
