//go:build unix

package main

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stuckTTL is short: these tests wait for the end of leases.
const stuckTTL = 3 * time.Second

// stop freezes processes.
func stop(t *testing.T, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		must(t, syscall.Kill(pid, syscall.SIGSTOP))
	}
}

// thaw lets processes go on. The first to wake may have killed the next one, which
// has not answered it.
func thaw(t *testing.T, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != syscall.ESRCH {
			must(t, err)
		}
	}
}

// startThree starts three nodes, and returns the one that runs the command and
// the others.
func startThree(t *testing.T, start func(t *testing.T, url string) *process) (first *process, others []*process) {
	t.Helper()
	var nodes []*process
	for _, url := range quorumURLs(t, stuckTTL) {
		nodes = append(nodes, start(t, url))
	}
	first = oneRuns(t, nodes...)
	for _, p := range nodes {
		if p != first {
			p.stderr.next("another node holds the id")
			others = append(others, p)
		}
	}
	return first, others
}

func mustNotOverlap(t *testing.T, nodes ...*process) {
	t.Helper()
	for _, p := range nodes {
		if n := p.stdout.count("OVERLAP"); n > 0 {
			t.Errorf("two commands overlap: %s", p.stdout.all())
		}
	}
}

// Whoever of the three can still act kills the command, deaf as it is, before
// the lease runs out. The lock says so: the next one takes it when it starts.
func TestCommandOfTheFrozenIsKilledBeforeAnotherStarts(t *testing.T) {
	t.Parallel()
	for name, victims := range map[string]func(t *testing.T, p *process) []int{
		"highlander": func(t *testing.T, p *process) []int { return []int{p.cmd.Process.Pid} },
		"highlander and guard": func(t *testing.T, p *process) []int {
			guard, _ := helpersOf(t, p)
			return []int{p.cmd.Process.Pid, guard}
		},
		"highlander and keeper": func(t *testing.T, p *process) []int {
			_, keeper := helpersOf(t, p)
			return []int{p.cmd.Process.Pid, keeper}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lock := filepath.Join(t.TempDir(), "lock")
			first, others := startThree(t, func(t *testing.T, url string) *process { return startLocked(t, url, lock) })
			frozen := victims(t, first)
			stop(t, frozen...)
			oneRuns(t, others...)
			thaw(t, frozen...)
			first.stderr.next("lease lost")
			mustNotOverlap(t, append(others, first)...)
		})
	}
}

// A holder that no quorum renews stops its command before others may start one,
// though that does not heed SIGTERM.
func TestCommandOfACutOffHolderIsKilledBeforeAnotherStarts(t *testing.T) {
	t.Parallel()
	lock := filepath.Join(t.TempDir(), "lock")
	first, others := startThree(t, func(t *testing.T, url string) *process { return startLocked(t, url, lock) })
	voters := []int{others[0].cmd.Process.Pid, others[1].cmd.Process.Pid}
	stop(t, voters...)
	first.stderr.has("lease lost")
	thaw(t, voters...)
	first.stderr.has("command ended", "signal=killed")
	oneRuns(t, append(others, first)...)
	mustNotOverlap(t, append(others, first)...)
}

// Nobody is left who could kill the command: it lives on beside the next one.
// What protects then is the token, and the first that gets to run kills it.
func TestWithAllThreeFrozenOnlyTheTokenProtects(t *testing.T) {
	t.Parallel()
	pulse := newPulse(t)
	first, others := startThree(t, func(t *testing.T, url string) *process {
		p := prepareNode(t, url, `echo "runs on $HIGHLANDER_NODE with $HIGHLANDER_TOKEN"
			exec 9<>"$PULSE"
			trap '' TERM
			while :; do echo "tick"; echo "token $HIGHLANDER_TOKEN" >&9; sleep 0.2; done`, "--shutdown", "500ms")
		p.cmd.Env = append(p.cmd.Env, "PULSE="+pulse.path)
		p.start()
		return p
	})
	guard, keeper := helpersOf(t, first)
	all := []int{first.cmd.Process.Pid, guard, keeper}
	stop(t, all...)
	second := oneRuns(t, others...)
	ticks := first.stdout.count("tick")
	for begin := time.Now(); first.stdout.count("tick") == ticks; time.Sleep(time.Millisecond) {
		if time.Since(begin) > safetyNet {
			t.Fatal("the command of the frozen does not live on: there is nothing to show")
		}
	}
	// A resource that refuses what has a lower token than it has seen.
	older, newer := tokenIn(t, first), tokenIn(t, second)
	if newer <= older {
		t.Errorf("the tokens are %d and then %d", older, newer)
	}

	thaw(t, all...)
	first.stderr.has("lease lost")
	first.stderr.has("child stopped") // by the keeper; or by the guard's end, if that was late
	for _, p := range append(others, first) {
		p.signal(syscall.SIGTERM)
	}
	pulse.stops()
}

// tokenIn returns the token that the command of a node printed last.
func tokenIn(t *testing.T, p *process) uint64 {
	t.Helper()
	lines := strings.Split(p.stdout.all(), "\n")
	slices.Reverse(lines)
	for _, line := range lines {
		if _, token, ok := strings.Cut(line, " with "); ok {
			n, err := strconv.ParseUint(token, 10, 64)
			must(t, err)
			return n
		}
	}
	t.Fatalf("no token in %q", lines)
	return 0
}
