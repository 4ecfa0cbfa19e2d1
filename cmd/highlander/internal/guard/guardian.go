//go:build unix

package guard

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// guardian is the guard: it hands messages down to the keeper, ends the
// command when highlander is gone or its deadline has passed, is there for the
// orphans when the keeper is gone, and in the end says that nothing is left.
type guardian struct {
	highlander     int            // its number, while it lives
	fromHighlander <-chan message // nil once highlander is gone
	fromKeeper     <-chan message
	toKeeper       chan message
	up             *os.File // highlander waits for the end of it
	keeper         *exec.Cmd
	cgroup         *cgroup
	vault          *os.File // nobody reads from it

	group    int    // process group of the command; zero while there is none
	run      uint64 // the last command that was asked for ...
	live     bool   // ... and whether any of it may be left
	deadline instant
	alarm    *alarm
	patience *time.Timer // with the keeper
	again    repeat      // runs from the order to kill to the end of the command
	dead     Certificate
}

// goneWithin is how long highlander's process may be there after its pipe ended.
const goneWithin = time.Second

// guardMain is the whole life of a guard.
func guardMain() error {
	highlander := os.Getppid()
	if err := settle(fdVault); err != nil {
		return err
	}
	asked := make(chan os.Signal, 1)
	if !signal.Ignored(syscall.SIGTERM) {
		signal.Notify(asked, syscall.SIGTERM)
	}
	alarm, err := newAlarm()
	if err != nil {
		return err
	}
	g := &guardian{
		highlander:     highlander,
		fromHighlander: receive(os.NewFile(fdDown, "down")),
		toKeeper:       make(chan message, 64),
		up:             os.NewFile(fdUp, "up"),
		cgroup:         inheritCgroup(fdCgroup),
		vault:          os.NewFile(fdVault, "vault"),
		alarm:          alarm,
		patience:       time.NewTimer(keeperGrace),
		again:          newRepeat(),
	}
	g.patience.Stop()
	if err := g.startKeeper(); err != nil {
		return fmt.Errorf("start the keeper: %w", err)
	}
	g.watch()
	exterminate(g.group, session(), g.cgroup)
	g.vault.Close()
	if !g.mayTestify() {
		return nil
	}
	if err := letGo(); err != nil {
		return err
	}
	g.dead.testify(asked)
	return nil
}

// mayTestify says, when nothing is left that this process can find, whether
// there is a certificate to give out and all of it is true.
func (g *guardian) mayTestify() bool {
	if !orphansFallToUs && g.live && g.group == 0 {
		return false // the keeper died before it told what there was to kill
	}
	g.hearOut()
	return len(g.dead.Frame) > 0 && g.highlanderGone()
}

// hearOut takes what highlander says to the end. One that lives ends the pipe
// when it sees that guard and keeper have ended theirs.
func (g *guardian) hearOut() {
	_ = g.up.Close()
	if g.fromHighlander == nil {
		return
	}
	for m := range g.fromHighlander {
		if m.Kind == msgCertificate {
			g.dead = m.Certificate
		}
	}
}

// highlanderGone says whether the process is gone: that its pipe has ended does
// not prove it. A process that dies closes its files a moment before it leaves
// its children.
func (g *guardian) highlanderGone() bool {
	for begin := time.Now(); os.Getppid() == g.highlander; time.Sleep(100 * time.Microsecond) {
		if time.Since(begin) > goneWithin {
			return false
		}
	}
	return true
}

func (g *guardian) startKeeper() error {
	downR, downW, err := os.Pipe()
	if err != nil {
		return err
	}
	statusR, statusW, err := os.Pipe()
	if err != nil {
		return err
	}
	g.keeper = helper(keeperMode, &syscall.SysProcAttr{Setpgid: true}, downR, g.up, g.cgroup.file(), g.vault, statusW)
	if err := g.keeper.Start(); err != nil {
		return err
	}
	downR.Close()
	statusW.Close()
	g.fromKeeper = receive(statusR)
	go forward(g.toKeeper, downW)
	return nil
}

// forward writes messages to pipe, and ends it when there are no more.
func forward(messages <-chan message, pipe *os.File) {
	defer pipe.Close()
	to := newSender(pipe)
	for m := range messages {
		// A keeper that is gone or frozen is dealt with in watch.
		_ = to.send(m)
	}
}

// watch returns when the keeper is gone.
func (g *guardian) watch() {
	for {
		select {
		case m, ok := <-g.fromHighlander:
			if !ok {
				g.orphaned()
				continue
			}
			g.handDown(m)
		case m, ok := <-g.fromKeeper:
			if !ok {
				return
			}
			g.learn(m)
		case <-g.alarm.C:
			if g.deadline.passed() && g.live {
				g.kill()
			}
		case <-g.again.C:
			g.killAgain()
		case <-g.patience.C:
			_ = g.keeper.Process.Kill()
		}
	}
}

// orphaned ends everything: highlander is gone.
func (g *guardian) orphaned() {
	g.fromHighlander = nil
	close(g.toKeeper)
	g.kill()
}

// kill kills the command at a moment when the keeper does the same of its own,
// in case that one is frozen.
func (g *guardian) kill() {
	g.killCommand()
	g.again.start()
	g.patience.Reset(keeperGrace)
}

func (g *guardian) killCommand() {
	_ = g.cgroup.kill()
	killGroup(g.group, session())
	killDescendants(os.Getpid(), g.keeper.Process.Pid)
}

// killAgain kills what got away. A keeper that by now has not even said whether
// it has started the command may be frozen just before it does so, and must not go
// on. What it has started falls to this process.
func (g *guardian) killAgain() {
	if !g.live {
		return
	}
	overdue := g.deadline.passed() || g.fromHighlander == nil
	if orphansFallToUs && overdue && g.group == 0 {
		_ = g.keeper.Process.Kill()
	}
	g.killCommand()
	g.again.next()
}

func (g *guardian) handDown(m message) {
	switch m.Kind {
	case msgCertificate:
		g.dead = m.Certificate
		return
	case msgDeadline:
		g.deadline = m.Deadline
		g.alarm.Set(m.Deadline)
	case msgStart:
		// The one before is gone, though the keeper's word of it may be on its way.
		g.run, g.live, g.group = m.Run, true, 0
		g.patience.Stop()
		g.again.Stop()
	case msgStop:
		if g.live {
			g.patience.Reset(max(m.Shutdown, 0) + keeperGrace)
		}
	case msgSignal:
		if g.live && m.Signal == syscall.SIGKILL {
			g.kill()
		}
	}
	select {
	case g.toKeeper <- m:
	default: // it has not read for long: frozen
		_ = g.keeper.Process.Kill()
	}
}

func (g *guardian) learn(m message) {
	switch m.Kind {
	case msgStarted:
		g.group = m.PID
	case msgFailed, msgGone:
		g.group = 0
		// The next start may have overtaken this.
		if m.Run == g.run {
			g.live = false
			g.patience.Stop()
			g.again.Stop()
		}
	}
}
