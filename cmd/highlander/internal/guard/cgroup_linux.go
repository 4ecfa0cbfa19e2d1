package guard

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// cgroup is the control group that a command is started in, and with it
// everything it forks: a process leaves its session and its parents as it likes,
// but its cgroup only if it has the right to. The kernel kills all of it at one
// stroke, forks that are under way and processes of other users included.
//
// No controllers are enabled in it, so it may be made beside the processes of
// highlander's own cgroup. It is nil where none can be made: its methods do
// nothing then, and process groups and parentage have to do.
//
// It holds a cgroup for each command, made by the keeper: since Linux 6.15 one in
// which cgroup.kill was written kills whatever is started into it from elsewhere
// (the kernel compares how often the two cgroups were killed).
//
// Highlander, guard and keeper share the lock on its directory, and the command
// does not: whoever gets it, finds the cgroup of a highlander of which nobody
// lived on to clean up.
type cgroup struct {
	path string
	dir  *os.File
}

const (
	cgroupPrefix = "highlander-command-"
	cgroupRandom = 26 // length of rand.Text
)

// newCgroup makes one, and ends those that were left behind beside it.
func newCgroup(log *slog.Logger) *cgroup {
	parent, err := ownCgroup()
	if err == nil {
		sweepCgroups(parent, log)
		var c *cgroup
		if c, err = claimCgroup(parent); err == nil {
			log.Debug("the command gets a cgroup of its own", "cgroup", c.path)
			return c
		}
	}
	log.Debug("the command gets no cgroup of its own", "why", err)
	return nil
}

// ownCgroup returns the directory of this process's cgroup.
func ownCgroup() (string, error) {
	path, err := cgroupOf("self")
	if err != nil {
		return "", err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		// id parent device root mountpoint options ... - type source options
		mount, kind, _ := strings.Cut(line, " - ")
		fields := strings.Fields(mount)
		if len(fields) < 5 || !strings.HasPrefix(kind, "cgroup2 ") {
			continue
		}
		root := unescape.Replace(fields[3])
		if rest, err := filepath.Rel(root, path); err == nil && filepath.IsLocal(rest) {
			return filepath.Join(unescape.Replace(fields[4]), rest), nil
		}
	}
	return "", errors.New("no cgroup2 is mounted that shows this process's own")
}

var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// cgroupOf returns the path of a process's cgroup within the hierarchy.
func cgroupOf(pid any) (string, error) {
	lines, err := os.ReadFile(fmt.Sprintf("/proc/%v/cgroup", pid))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(lines)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSuffix(path, "\n"), nil
		}
	}
	return "", errors.New("this process is in no cgroup of version 2")
}

// errSwept is about a cgroup that another highlander, which is starting too, took
// for one that was left behind: it was made and not locked yet.
var errSwept = errors.New("others sweep up each new cgroup before it is locked")

// claimCgroup makes a cgroup in parent, and another one when it was swept up.
func claimCgroup(parent string) (c *cgroup, err error) {
	for range 100 {
		if c, err = makeCgroup(parent); !errors.Is(err, errSwept) {
			break
		}
	}
	return c, err
}

// makeCgroup makes a cgroup in parent and locks it.
func makeCgroup(parent string) (*cgroup, error) {
	path := filepath.Join(parent, cgroupPrefix+rand.Text())
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, err
	}
	c, err := openCgroup(path)
	if err != nil {
		_ = os.Remove(path)
		return nil, fmt.Errorf("%w: %w", errSwept, err)
	}
	if err := c.probe(); err != nil {
		c.remove()
		return nil, err
	}
	return c, nil
}

// probe finds out whether a command can be started in c. The attempt to start a
// program that does not exist gets as far as the new process, and no further.
func (c *cgroup) probe() error {
	if _, err := os.Stat(filepath.Join(c.path, "cgroup.kill")); err != nil {
		return err // Linux before 5.14, or a file system that is none
	}
	attr := &syscall.SysProcAttr{}
	leave, err := c.enter(attr, 0)
	if err != nil {
		return err
	}
	defer c.clear()
	defer leave()
	pid, _, err := syscall.StartProcess(filepath.Join(c.path, "no program"), nil, &syscall.ProcAttr{Sys: attr})
	switch {
	case err == nil:
		bury(pid)
		return fmt.Errorf("the kernel kills what is started in cgroup %s", c.path)
	case err != syscall.ENOENT:
		return fmt.Errorf("start a process in cgroup %s: %w", c.path, err)
	}
	return nil
}

// openCgroup opens and locks the cgroup at path. It fails while anybody else has
// the lock, and once the cgroup has been removed.
func openCgroup(path string) (*cgroup, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	c := &cgroup{path: path, dir: dir}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		dir.Close()
		return nil, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	if _, err := os.Stat(path); err != nil {
		dir.Close()
		return nil, err
	}
	return c, nil
}

// sweepCgroups ends what is in cgroups in parent that nobody has locked.
func sweepCgroups(parent string, log *slog.Logger) {
	left, _ := filepath.Glob(filepath.Join(parent, cgroupPrefix+strings.Repeat("?", cgroupRandom)))
	for _, path := range left {
		c, err := openCgroup(path)
		if err != nil {
			continue // somebody uses it, or it is gone
		}
		if c.populated() {
			log.Warn("ending what the command of a highlander that was killed together with its guards has left", "cgroup", path)
		}
		c.exterminate()
		c.remove()
	}
}

// inheritCgroup returns the cgroup that a helper was given as fd, if any.
func inheritCgroup(fd uintptr) *cgroup {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Fstatfs(int(fd), &fs) != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC ||
		unix.Fstat(int(fd), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil // it is something else of this process
	}
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil
	}
	return &cgroup{path: path, dir: os.NewFile(fd, path)}
}

// file is what helpers are given; nil for none.
func (c *cgroup) file() *os.File {
	if c == nil {
		return nil
	}
	return c.dir
}

// enter makes attr start a process in a fresh cgroup within c. Call leave after
// the start.
func (c *cgroup) enter(attr *syscall.SysProcAttr, run uint64) (leave func(), err error) {
	path := filepath.Join(c.path, strconv.FormatUint(run, 10))
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, err
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	attr.UseCgroupFD, attr.CgroupFD = true, int(dir.Fd())
	return func() { dir.Close() }, nil
}

// clear removes what enter has made, when nobody is in it any more.
func (c *cgroup) clear() {
	if c != nil {
		removeCgroups(c.path)
	}
}

// contains reports whether a process is in the cgroup or below it, or was when
// it died.
func (c *cgroup) contains(pid int) bool {
	if c == nil {
		return false
	}
	path, err := cgroupOf(pid)
	return err == nil && strings.Contains(path+"/", "/"+filepath.Base(c.path)+"/")
}

// kill kills all processes in the cgroup.
func (c *cgroup) kill() error {
	if c == nil {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(c.path, "cgroup.kill"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString("1")
	return err
}

// populated reports whether a process is alive in the cgroup.
func (c *cgroup) populated() bool {
	if c == nil {
		return false
	}
	events, err := c.read("cgroup.events")
	return err == nil && strings.Contains(events, "populated 1")
}

func (c *cgroup) read(name string) (string, error) {
	content, err := os.ReadFile(filepath.Join(c.path, name))
	return string(bytes.TrimSpace(content)), err
}

// exterminate kills all processes in the cgroup and returns when none is left.
func (c *cgroup) exterminate() {
	if c == nil {
		return
	}
	_ = c.kill()
	for wait := time.Millisecond; c.populated(); wait = min(2*wait, pollInterval) {
		// The file can be polled, but the kernel tells of changes at most once
		// in ten milliseconds.
		time.Sleep(wait)
		_ = c.kill() // what was put in since
	}
}

// remove removes the cgroup and those that were made in it, and gives the lock
// up. It does so for no cgroup with processes in it.
func (c *cgroup) remove() {
	if c == nil {
		return
	}
	c.clear()
	_ = os.Remove(c.path) // another of the three may have been first
	c.dir.Close()
}

// removeCgroups removes all cgroups within the one at path.
func removeCgroups(path string) {
	entries, _ := os.ReadDir(path)
	for _, entry := range entries {
		if entry.IsDir() {
			inner := filepath.Join(path, entry.Name())
			removeCgroups(inner)
			_ = os.Remove(inner)
		}
	}
}
