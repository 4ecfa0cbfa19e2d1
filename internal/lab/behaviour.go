package lab

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

// Child says how the children of a node behave.
type Child struct {
	Deaf     bool          // ignores SIGTERM
	Slow     time.Duration // takes so long to stop
	Forks    int           // has grandchildren, which end at SIGTERM ...
	Sessions bool          // ... in sessions of their own
	DeafFork bool          // ... or ignore it
}

// String returns c for a log.
func (c Child) String() string { return fmt.Sprint(c.args()) }

func (c Child) args() []string {
	var args []string
	if c.Deaf {
		args = append(args, "-deaf")
	}
	if c.Slow > 0 {
		args = append(args, "-slow="+c.Slow.String())
	}
	if c.Forks > 0 {
		args = append(args, "-forks="+strconv.Itoa(c.Forks))
	}
	if c.Sessions {
		args = append(args, "-sessions")
	}
	if c.DeafFork {
		args = append(args, "-deaf-forks")
	}
	return args
}

func (c *Child) flags(set *flag.FlagSet) {
	set.BoolVar(&c.Deaf, "deaf", false, "")
	set.DurationVar(&c.Slow, "slow", 0, "")
	set.IntVar(&c.Forks, "forks", 0, "")
	set.BoolVar(&c.Sessions, "sessions", false, "")
	set.BoolVar(&c.DeafFork, "deaf-forks", false, "")
}

// drawChild draws how a child behaves.
func drawChild(random *rand.Rand, shutdown time.Duration) Child {
	var c Child
	switch random.IntN(10) {
	case 0, 1:
		c.Deaf = true
	case 2, 3:
		c.Slow = between(random, 0, shutdown*7/10)
	case 4, 5:
		c.Forks, c.Sessions = 1+random.IntN(2), random.IntN(2) == 0
	case 6:
		c.Forks, c.DeafFork, c.Sessions = 1, true, random.IntN(2) == 0
	}
	return c
}
