package guard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// requireEnv lists the kinds of tests that must not be skipped.
const requireEnv = "HIGHLANDER_TEST_REQUIRE"

// needCgroup skips the test where no cgroup can be made.
func needCgroup(t *testing.T) {
	t.Helper()
	if os.Getenv(noCgroupEnv) != "" {
		t.Skip("this is the run without cgroups")
	}
	var log bytes.Buffer
	c := newCgroup(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	switch {
	case c != nil:
		c.remove()
	case slices.Contains(strings.Split(os.Getenv(requireEnv), ","), "cgroup"):
		t.Fatalf("%s asks for a cgroup: %s", requireEnv, log.String())
	default:
		t.Skip(log.String())
	}
}

// mustBeRemoved fails the test if a cgroup is still there.
func mustBeRemoved(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the cgroup %s is still there: %v", path, err)
	}
}

func (g *Guard) cgroupPath() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.link.cgroup.path
}

// Nobody is left who is related to the daemons, but highlander knows their cgroup.
func TestDaemonsEndWithGuardAndKeeperAtOnce(t *testing.T) {
	needCgroup(t)
	for range 5 {
		g, hall := startGuard(t), newHall(t)
		ended := g.inBackground(t.Context(), hall.command(t, "fork-setsid", "fork-setsid", "join", "hold"))
		members := hall.wait(t, 4)
		path := g.cgroupPath()
		guard, keeper := g.pids()
		strike(t, guard, keeper)
		want(t, await(t, ended), 0, ErrGuardDied)
		mustBeGone(t, members)
		mustBeRemoved(t, path)
		for _, m := range members {
			if _, there := readProcess(m.pid); there {
				t.Errorf("process %d was not buried", m.pid)
			}
		}
		g.Close()
	}
}

// Its daemon forks into a new session and exits, again and again: whoever looks
// at a list of processes is late.
func TestCommandThatNeverStandsStillIsEnded(t *testing.T) {
	needCgroup(t)
	for name, victims := range map[string]func(h *highlander) []int{
		"highlander":       func(h *highlander) []int { return []int{h.cmd.Process.Pid} },
		"guard and keeper": func(h *highlander) []int { return []int{h.guard, h.keeper} },
	} {
		t.Run(name, func(t *testing.T) {
			hall := newHall(t)
			h := launch(t, hall.command(t, "fork-hop", "join", "hold"), nil)
			h.ready(t)
			h.tell(t, "run")
			hall.wait(t, 6)
			strike(t, victims(h)...)
			h.waitAllGone(t)
		})
	}
}

// When highlander, guard and keeper die at once, nobody is left to act, and the
// kernel ends the main process alone. The next start ends the rest.
func TestNextStartEndsWhatWasLeftBehind(t *testing.T) {
	needCgroup(t)
	parent, err := ownCgroup()
	if err != nil {
		t.Fatal(err)
	}
	dir := cgroupOfTest(t, parent) // where no highlander of another test starts
	hall := newHall(t)
	start := func(words ...string) *highlander {
		h := launch(t, hall.command(t, words...), func(cmd *exec.Cmd) {
			cmd.Args = []string{"sh", "-c", `echo $$ > "$0"/cgroup.procs && exec "$@"`, dir, cmd.Path, highlanderMode}
			cmd.Path = "/bin/sh"
		})
		h.ready(t)
		h.tell(t, "run")
		return h
	}
	living := start("join", "report-signals", "hold") // another one, whose command nobody touches
	bystander := hall.wait(t, 1)[0]
	bystander.next(t) // listening
	dying := start("fork-setsid", "fork-setsid", "join", "hold")
	members := hall.wait(t, 4)
	dead := []int{dying.cmd.Process.Pid, dying.keeper, dying.guard} // the death of the guard would wake a stopped keeper
	strike(t, dead...)
	for _, pid := range dead {
		gone(t, pid) // and so is its hold on the cgroup
	}
	left := 0
	for _, m := range members {
		if strings.Trim(threadStates(m.pid), "ZX") != "" {
			left++
		}
	}
	if left < 3 {
		t.Errorf("%d daemons are left: there is nothing to show", left)
	}

	next := start("join", "hold")
	mustBeGone(t, members)
	living.tell(t, "signal")
	if got := bystander.next(t); got != syscall.SIGUSR1.String() {
		t.Errorf("the command of another highlander reported %q", got)
	}
	if cgroups, _ := filepath.Glob(filepath.Join(dir, cgroupPrefix+"*")); len(cgroups) != 2 {
		t.Errorf("two live, and there are the cgroups %v", cgroups)
	}
	for _, h := range []*highlander{living, next} {
		strike(t, h.cmd.Process.Pid)
		h.waitAllGone(t)
	}
}

// Highlanders that start at the same time do not take each other's cgroups for
// ones that were left behind.
func TestCgroupIsMadeWhileOthersSweep(t *testing.T) {
	needCgroup(t)
	parent, err := ownCgroup()
	if err != nil {
		t.Fatal(err)
	}
	dir := cgroupOfTest(t, parent)
	ctx, cancel := context.WithCancel(t.Context())
	var sweeping sync.WaitGroup
	sweeping.Go(func() {
		for ctx.Err() == nil {
			sweepCgroups(dir, discard)
		}
	})
	for range 50 {
		c, err := claimCgroup(dir)
		if err != nil {
			t.Error(err)
			break
		}
		c.remove()
	}
	cancel()
	sweeping.Wait()
}

// cgroupOfTest makes a cgroup in parent for highlanders to run in.
func cgroupOfTest(t *testing.T, parent string) string {
	t.Helper()
	dir, err := os.MkdirTemp(parent, "highlander-test-")
	if err != nil {
		t.Fatal(err)
	}
	_ = os.Chmod(dir, 0o755)
	t.Cleanup(func() {
		c := &cgroup{path: dir}
		c.exterminate() // the guards end a moment after their pipes
		c.clear()
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A process that was put into the cgroup is nobody's child here. It is waited
// for, and ended, all the same.
func TestStrangerInTheCgroupIsEnded(t *testing.T) {
	needCgroup(t)
	parent, err := ownCgroup()
	if err != nil {
		t.Fatal(err)
	}
	for name, killed := range map[string]func(h *highlander, m *member) []int{
		"command":              func(h *highlander, m *member) []int { return []int{m.pid} },
		"highlander":           func(h *highlander, m *member) []int { return []int{h.cmd.Process.Pid} },
		"guard":                func(h *highlander, m *member) []int { return []int{h.guard} },
		"highlander and guard": func(h *highlander, m *member) []int { return []int{h.cmd.Process.Pid, h.guard} },
	} {
		t.Run(name, func(t *testing.T) {
			hall := newHall(t)
			c := hall.command(t, "join", "hold")
			c.Shutdown = 50 * time.Millisecond
			h := launch(t, c, nil)
			h.ready(t)
			h.tell(t, "run")
			m := hall.wait(t, 1)[0]
			stranger := exec.Command(executable(t), commandMode, "join", "hold")
			stranger.Env = append(os.Environ(), "HALL="+hall.path)
			if err := stranger.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = stranger.Wait() }()
			defer func() { _ = stranger.Process.Kill() }()
			entered := hall.wait(t, 1)
			path, err := cgroupOf(m.pid)
			if err != nil {
				t.Fatal(err)
			}
			inner := filepath.Join(parent, filepath.Base(filepath.Dir(path)), filepath.Base(path))
			if err := os.WriteFile(filepath.Join(inner, "cgroup.procs"), []byte(strconv.Itoa(stranger.Process.Pid)), 0); err != nil {
				t.Fatal(err)
			}
			strike(t, killed(h, m)...)
			if strings.Contains(name, "highlander") {
				h.waitAllGone(t)
			} else {
				_ = h.report(t) // ended
				mustBeGone(t, entered)
			}
			waitEnd(t, entered)
			mustBeRemoved(t, inner)
		})
	}
}

func TestCgroupIsGoneAfterwards(t *testing.T) {
	needCgroup(t)
	g, hall := startGuard(t), newHall(t)
	path := g.cgroupPath()
	for range 3 {
		want(t, await(t, g.inBackground(t.Context(), hall.command(t, "exit:0"))), 0, nil)
	}
	if entries, _ := filepath.Glob(filepath.Join(path, "*", "cgroup.procs")); len(entries) != 0 {
		t.Errorf("after the commands there are %v", entries)
	}
	g.Close()
	mustBeRemoved(t, path)

	// Highlander is dead: guard or keeper does it.
	h := launch(t, hall.command(t, aTree...), nil)
	h.ready(t)
	h.tell(t, "run")
	inner, err := cgroupOf(hall.wait(t, 4)[0].pid)
	if err != nil {
		t.Fatal(err)
	}
	strike(t, h.cmd.Process.Pid)
	h.waitAllGone(t)
	mustBeRemoved(t, filepath.Join(filepath.Dir(path), filepath.Base(filepath.Dir(inner))))
}

// A highlander that nobody gave a cgroup to, or that finds it cannot use one,
// runs its command all the same.
func TestCgroupIsUsedWhereItCanBe(t *testing.T) {
	needCgroup(t)
	parent, err := ownCgroup()
	if err != nil {
		t.Fatal(err)
	}
	mount := mountOf(t, parent)
	binary := publicCopy(t)
	for name, tc := range map[string]struct {
		uid     int
		prepare func(t *testing.T, dir string) // the cgroup that highlander runs in
		script  string
		used    bool
	}{
		"root":                                   {used: true},
		"user without rights":                    {uid: 65534},
		"user to whom the subtree was delegated": {uid: 65534, prepare: delegate, used: true},
		"read-only":                              {script: "mount -o remount,bind,ro " + mount + " && "},
		"no cgroup2":                             {script: "umount " + mount + " && "},
		"threaded":                               {prepare: threaded},
		"killed once":                            {prepare: killedOnce, used: killedOnceDoesNotMatter(t, parent)},
	} {
		t.Run(name, func(t *testing.T) {
			hall := newHall(t)
			_ = os.Chmod(filepath.Dir(hall.path), 0o755)
			_ = os.Chmod(hall.path, 0o777)
			dir := cgroupOfTest(t, parent)
			if tc.prepare != nil {
				tc.prepare(t, dir)
			}
			c := hall.command(t, "join", "hold")
			c.Path = binary
			h := launch(t, c, func(cmd *exec.Cmd) {
				script := fmt.Sprintf(`echo $$ > %s/cgroup.procs && %s exec setpriv --reuid %d --clear-groups -- "$@"`, dir, tc.script, tc.uid)
				cmd.Path = "/usr/bin/unshare"
				cmd.Args = []string{"unshare", "--mount", "sh", "-c", script, "sh", binary, highlanderMode}
			})
			h.ready(t)
			h.tell(t, "run")
			m := hall.wait(t, 1)[0]
			path, err := cgroupOf(m.pid)
			if err != nil {
				t.Fatal(err)
			}
			if used := strings.Contains(path, "/"+cgroupPrefix); used != tc.used {
				t.Errorf("the command runs in the cgroup %s", path)
			}
			_ = syscall.Kill(m.pid, syscall.SIGKILL)
			if got := h.report(t); got != "ended 137 <nil>" {
				t.Errorf("highlander reported %q", got)
			}
			h.waitAllGone(t)
		})
	}
}

// delegate hands a cgroup to a user, as systemd does with Delegate=yes.
func delegate(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"} {
		if err := os.Chown(filepath.Join(dir, name), 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
}

// threaded makes a cgroup one in which new ones are of no use.
func threaded(t *testing.T, dir string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.type"), []byte("threaded"), 0); err != nil {
		t.Fatal(err)
	}
}

// publicCopy returns a copy of this binary that every user may run.
func publicCopy(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "guard")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "guard.test")
	copyOfThis(t, path)
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(path, 0o755)); err != nil {
		t.Fatal(err)
	}
	return path
}

// killedOnce makes a cgroup one from which nothing can be started into a fresh
// one, on kernels that compare how often they were killed.
func killedOnce(t *testing.T, dir string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
}

// killedOnceDoesNotMatter asks the kernel, the other way round.
func killedOnceDoesNotMatter(t *testing.T, parent string) bool {
	t.Helper()
	c, err := makeCgroup(parent)
	if err != nil {
		t.Fatal(err)
	}
	defer c.remove()
	attr := &syscall.SysProcAttr{}
	leave, err := c.enter(attr, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	if err := c.kill(); err != nil {
		t.Fatal(err)
	}
	pid, _, err := syscall.StartProcess("/no program", nil, &syscall.ProcAttr{Sys: attr})
	if err == nil {
		bury(pid)
	}
	return err != nil
}

// mountOf returns the mount point that path is under.
func mountOf(t *testing.T, path string) string {
	t.Helper()
	out, err := exec.Command("stat", "--format=%m", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
