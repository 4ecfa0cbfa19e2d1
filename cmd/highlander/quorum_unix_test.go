//go:build unix

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A command that takes a lock which the one before it must have given up, with
// its last process: it fails if two overlap. The lock is held by grandchildren
// in a session of their own, deaf to SIGTERM, as long as one of them lives.
const lockedForever = `exec 9>>"$LOCK"
	flock -n 9 || {
		echo "OVERLAP on $HIGHLANDER_NODE"
		for f in /proc/[0-9]*/fd/9; do
			[ "$(readlink "$f")" = "$LOCK" ] && echo "held by $(cut -c 1-60 "${f%/fd/9}/stat")"
		done
		exit 99
	}
	trap '' TERM
	setsid sh -c 'trap "" TERM; sleep 1000 & wait' &
	echo "runs on $HIGHLANDER_NODE with $HIGHLANDER_TOKEN"
	while :; do sleep 1; done`

// quorumTTL is so long that a take-over in a fraction of it was not for its end.
const quorumTTL = 8 * time.Second

// quorumURLs returns the URLs of three voters of which two are a quorum.
func quorumURLs(t *testing.T, ttl time.Duration) []string {
	t.Helper()
	urls := clusterURLs(t, 3)
	for i := range urls {
		urls[i] += "&quorum=2&ttl=" + ttl.String()
	}
	return urls
}

// startLocked starts a node that runs lockedForever.
func startLocked(t *testing.T, url, lock string) *process {
	t.Helper()
	p := prepareNode(t, url, lockedForever, "--shutdown", "500ms", "--max-restarts", "1000")
	p.cmd.Env = append(p.cmd.Env, "LOCK="+lock)
	p.start()
	return p
}

// helpers returns the guard and the keeper of a highlander.
func helpersOf(t *testing.T, p *process) (guard, keeper int) {
	t.Helper()
	guard = childNamed(t, p.cmd.Process.Pid, "hl-guard")
	return guard, childNamed(t, guard, "hl-keeper")
}

func childNamed(t *testing.T, parent int, name string) int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	must(t, err)
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		pid, rest, ok := strings.Cut(string(stat), " ("+name+") ")
		if fields := strings.Fields(rest); err == nil && ok && fields[1] == strconv.Itoa(parent) {
			found, err := strconv.Atoi(pid)
			must(t, err)
			return found
		}
	}
	t.Fatalf("process %d has no child %s", parent, name)
	return 0
}

// oneRuns waits until one of up to three nodes says that it runs the command.
func oneRuns(t *testing.T, nodes ...*process) *process {
	t.Helper()
	limit := time.After(safetyNet)
	for {
		var more [3]<-chan struct{}
		for i, p := range nodes {
			line, found, next := p.stdout.take([]string{"runs on"})
			if found {
				t.Log(line)
				return p
			}
			more[i] = next
		}
		select {
		case <-more[0]:
		case <-more[1]:
		case <-more[2]:
		case <-limit:
			t.Fatal("gave up waiting for somebody to run the command")
		}
	}
}

// In quorum mode a crash would wait for the TTL. The guard's certificate ends
// that wait, and not before the last process of the command is gone.
func TestQuorumTakeOverAfterAKill(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		victims   func(t *testing.T, p *process) []int
		certified bool
	}{
		{"of highlander", func(t *testing.T, p *process) []int { return []int{p.cmd.Process.Pid} }, true},
		{"of highlander and keeper", func(t *testing.T, p *process) []int {
			_, keeper := helpersOf(t, p)
			return []int{p.cmd.Process.Pid, keeper}
		}, true},
		{"of highlander and guard", func(t *testing.T, p *process) []int {
			guard, _ := helpersOf(t, p)
			return []int{p.cmd.Process.Pid, guard}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ttl := quorumTTL
			if !c.certified {
				ttl = 3 * time.Second
			}
			urls, lock := quorumURLs(t, ttl), filepath.Join(t.TempDir(), "lock")
			var nodes []*process
			for _, url := range urls {
				nodes = append(nodes, startLocked(t, url, lock))
			}
			for _, p := range nodes {
				p.stderr.has("joined the cluster")
			}
			first := oneRuns(t, nodes...)
			others := []*process{}
			for _, p := range nodes {
				if p != first {
					p.stderr.next("another node holds the id")
					others = append(others, p)
				}
			}
			victims := c.victims(t, first)
			for _, pid := range victims {
				must(t, syscall.Kill(pid, syscall.SIGSTOP))
			}
			since := time.Now()
			for i, pid := range victims {
				if err := syscall.Kill(pid, syscall.SIGKILL); i == 0 || err != syscall.ESRCH { // the guard may be quicker
					must(t, err)
				}
			}
			oneRuns(t, others...)
			took := time.Since(since)
			t.Logf("the take-over took %v", took)
			first.exits(-1)
			for _, p := range others {
				if c.certified {
					p.stderr.next("a node is dead, and all that it ran is gone")
				} else if p.stderr.count("is dead") > 0 {
					t.Error("somebody testified, and nobody was there to do it")
				}
				if p.stdout.count("OVERLAP") > 0 {
					t.Errorf("two commands overlap: %s", p.stdout.all())
				}
			}
			if c.certified && took > ttl/2 {
				t.Errorf("the next holder has waited for %v", took)
			}
		})
	}
}

// The guard or the keeper alone can be killed: highlander lives, keeps the lease
// and runs the command again.
func TestQuorumHelpersAreKilled(t *testing.T) {
	t.Parallel()
	urls, lock := quorumURLs(t, 6*time.Second), filepath.Join(t.TempDir(), "lock") // it must not run out
	first := startLocked(t, urls[0], lock)
	second := startLocked(t, urls[1], lock)
	nodes := []*process{first, second}
	holder := oneRuns(t, nodes...)
	for round := range 2 {
		guard, keeper := helpersOf(t, holder)
		must(t, syscall.Kill([]int{guard, keeper}[round], syscall.SIGKILL))
		holder.stderr.next("the guard died")
		holder.stdout.next("runs on")
	}
	for _, p := range nodes {
		if p.stdout.count("OVERLAP") > 0 || p.stderr.count("is dead") > 0 || p != holder && p.stdout.all() != "" {
			t.Errorf("%s%s", p.stdout.all(), p.stderr.all())
		}
	}
}

// Two nodes and a witness: the witness is a voter and runs nothing.
func TestWitnessIsTheThirdVote(t *testing.T) {
	t.Parallel()
	urls, lock := quorumURLs(t, 6*time.Second), filepath.Join(t.TempDir(), "lock")
	witness := start(t, "witness", "--cluster", urls[2])
	a, b := startLocked(t, urls[0], lock), startLocked(t, urls[1], lock)
	holder := oneRuns(t, a, b)
	witness.stderr.next("a node holds the id", "id=hello")
	other := a
	if holder == a {
		other = b
	}
	other.stderr.next("another node holds the id")

	// One node is killed: the other one goes on.
	holder.signal(os.Kill)
	next := holderIn(other.stdout.next("runs on"))
	witness.stderr.next("a node is dead, and all that it ran is gone")
	witness.stderr.next("node holds the id", "id=hello", next) // it may have seen that nobody did
	holder.exits(-1)

	// It comes back, and the witness is killed: nothing happens.
	const votes = "this node votes from now on"
	again := startLocked(t, urls[indexOf(holder, a)], lock)
	again.stderr.next(votes)
	witness.signal(os.Kill)
	other.stderr.next("node does not answer and was given up")
	before := other.stdout.all()

	// All restart, one by one.
	witness = start(t, "witness", "--cluster", urls[2])
	witness.stderr.next(votes)
	other.signal(syscall.SIGTERM)
	again.stdout.next("runs on")
	other.exits(128 + 9) // deaf to SIGTERM
	if got := other.stdout.all(); got != before {
		t.Errorf("after the witness was killed: %s", got)
	}
	third := startLocked(t, urls[1-indexOf(holder, a)], lock)
	third.stderr.next(votes)
	witness.signal(syscall.SIGTERM)
	witness.exits(0)
	again.stderr.next("node left")
	witness = start(t, "witness", "--cluster", urls[2])
	witness.stderr.next(votes)
	again.signal(syscall.SIGTERM)
	next = holderIn(third.stdout.next("runs on"))
	again.exits(128 + 9)
	witness.stderr.next("node holds the id", "id=hello", next)
	witness.signal(os.Interrupt)
	witness.exits(0)
	for _, p := range []*process{a, b, again, third} {
		if p.stdout.count("OVERLAP") > 0 {
			t.Errorf("two commands overlap: %s", p.stdout.all())
		}
	}
	if out := witness.stdout.all(); out != "" {
		t.Errorf("the witness prints %q", out)
	}
}

// holderIn returns how the log names the node in a line of lockedForever.
func holderIn(line string) string { return "holder=" + strings.Fields(line)[2] }

// indexOf returns 0 if p is the first node, 1 otherwise.
func indexOf(p, first *process) int {
	if p == first {
		return 0
	}
	return 1
}

// Whoever waits for the end of highlander's output does not wait for the guard,
// which may try for long to reach a voter.
func TestGuardKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	urls := quorumURLs(t, quorumTTL)
	first := startNode(t, urls[0], forever, "--shutdown", "500ms")
	second := start(t, "witness", "--cluster", urls[1])
	first.stdout.next("hello runs on")
	guard, _ := helpersOf(t, first)
	second.signal(syscall.SIGSTOP) // it cannot acknowledge
	first.signal(os.Kill)
	first.exits(-1) // its output has ended
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", guard)); err != nil {
		t.Errorf("the guard does not try to reach the other voter: %v", err)
	}
	second.signal(syscall.SIGCONT)
	second.stderr.next("a node is dead, and all that it ran is gone")
	for end := time.Now().Add(safetyNet); exists(fmt.Sprintf("/proc/%d", guard)); {
		if time.Now().After(end) {
			t.Fatal("the guard does not end")
		}
	}
}
