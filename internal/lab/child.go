//go:build linux

package lab

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// childMode is the first argument of a child.
const childMode = "__lab-child"

// tickEvery is how often a child says that it runs.
const tickEvery = 10 * time.Millisecond

// ChildMain is the whole life of a child, and does not return, in a process
// that was started as one. Call it first thing in TestMain.
func ChildMain() {
	if len(os.Args) < 2 || os.Args[1] != childMode {
		return
	}
	c := child{terms: make(chan os.Signal, 8)}
	signal.Notify(c.terms, syscall.SIGTERM) // first: a SIGTERM must not end it unrecorded
	set := flag.NewFlagSet(childMode, flag.ExitOnError)
	ledger := set.String("ledger", "", "")
	lock := set.String("lock", "", "")
	set.IntVar(&c.parent, "parent", 0, "")
	c.how.flags(set)
	set.Parse(os.Args[2:])
	if err := c.run(*ledger, *lock); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(3)
	}
	os.Exit(0)
}

// child is a child, or a grandchild if it has a parent.
type child struct {
	how    Child
	parent int
	terms  chan os.Signal
	node   string
	token  uint64
	ledger *os.File
}

func (c *child) run(ledger, lock string) (err error) {
	begin := now()
	c.node = cmp.Or(os.Getenv("HIGHLANDER_NODE"), "-")
	c.token, _ = strconv.ParseUint(os.Getenv("HIGHLANDER_TOKEN"), 10, 64)
	if c.ledger, err = os.OpenFile(ledger, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600); err != nil {
		return err
	}
	if c.parent != 0 {
		return c.beGrandchild(begin)
	}
	c.writeAt(begin, Start, "")
	id, err := os.OpenFile(lock, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := c.take(id); err != nil {
		return err
	}
	for range c.how.Forks {
		if err := c.fork(ledger, id); err != nil {
			return err
		}
	}
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	var slow <-chan time.Time
	for {
		select {
		case <-tick.C:
			c.write(Tick, "")
		case <-c.terms:
			c.write(Term, "")
			if !c.how.Deaf && slow == nil {
				slow = time.After(c.how.Slow)
			}
		case <-slow:
			c.write(Stop, "")
			return nil
		}
	}
}

// take takes the lock of the id. The kernel frees it in the very moment in
// which the last process that shares it, a grandchild maybe, is gone.
func (c *child) take(id *os.File) error {
	err := flock(id, unix.LOCK_EX|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		other := make([]byte, 256)
		n, _ := id.ReadAt(other, 0)
		c.write(Overlap, string(bytes.TrimSpace(other[:n])))
		go func() {
			if flock(id, unix.LOCK_EX) == nil {
				c.write(Alone, "")
				c.sign(id)
			}
		}()
		return nil
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", id.Name(), err)
	}
	return c.sign(id)
}

// sign says in the lock file whose it is.
func (c *child) sign(id *os.File) error {
	_, err := id.WriteAt(fmt.Appendf(nil, "%-64s", fmt.Sprintf("%s/%d", c.node, os.Getpid())), 0)
	return err
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); err != unix.EINTR {
			return err
		}
	}
}

// fork starts a grandchild, which shares the lock.
func (c *child) fork(ledger string, id *os.File) error {
	args := []string{childMode, "-ledger=" + ledger, "-parent=" + strconv.Itoa(os.Getpid())}
	if c.how.DeafFork {
		args = append(args, "-deaf")
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.ExtraFiles = []*os.File{id}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: c.how.Sessions}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("fork: %w", err)
	}
	go cmd.Wait()
	return nil
}

func (c *child) beGrandchild(begin time.Duration) error {
	c.writeAt(begin, Fork, strconv.Itoa(c.parent))
	for range c.terms {
		if !c.how.Deaf {
			break
		}
	}
	return nil
}

func (c *child) write(e Entry, note string) { c.writeAt(now(), e, note) }

func (c *child) writeAt(at time.Duration, e Entry, note string) {
	l := Line{At: at, Entry: e, Node: c.node, PID: os.Getpid(), Token: c.token, Note: note}
	if _, err := c.ledger.WriteString(l.String() + "\n"); err != nil { // one write a line
		fmt.Fprintln(os.Stderr, "child: write to the ledger:", err)
		os.Exit(3)
	}
}

// now is the clock of the ledger. It runs alike in all processes.
func now() time.Duration {
	var ts unix.Timespec
	// The clock exists and the pointer is good: it cannot fail.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano())
}
