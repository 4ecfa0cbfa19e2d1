//go:build unix

package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	// startGrace is how long the command may take to start.
	startGrace = 10 * time.Second
	// hangGrace is how long highlander waits, after the command had to be
	// gone, before it takes the guard for frozen; longer than keeperGrace, so
	// that the guard deals with a frozen keeper first.
	hangGrace = 5 * time.Second
	// dialAgain is how often another guard is started for one that died while it
	// started.
	dialAgain = 2
)

// Guard runs commands, one at a time. All methods may be called concurrently.
type Guard struct {
	log      *slog.Logger
	noCgroup bool
	vault    *vault

	running sync.Mutex // held by Run

	mu       sync.Mutex
	link     *link
	runs     uint64
	deadline instant
	dead     Certificate
	expiry   *alarm // at the deadline
	closed   bool
}

// Start starts a guard and its keeper, and returns when both are there. It
// takes some ten milliseconds and is meant to be called while there is nothing
// to run yet. On Linux it makes this process a subreaper.
func Start(ctx context.Context, opts Options) (*Guard, error) {
	if err := becomeSubreaper(); err != nil {
		return nil, err
	}
	expiry, err := newAlarm()
	if err != nil {
		return nil, err
	}
	vault, err := newVault()
	if err != nil {
		expiry.Close()
		return nil, err
	}
	g := &Guard{log: opts.Logger, noCgroup: opts.noCgroup, vault: vault, expiry: expiry}
	if g.log == nil {
		g.log = slog.Default()
	}
	if _, err := g.connect(ctx); err != nil {
		vault.close()
		expiry.Close()
		return nil, err
	}
	return g, nil
}

// connect returns the link to a living guard, a fresh one if need be.
func (g *Guard) connect(ctx context.Context) (*link, error) {
	g.mu.Lock()
	l, closed := g.link, g.closed
	g.mu.Unlock()
	switch {
	case closed:
		return nil, ErrClosed
	case l != nil && l.alive():
		if !l.isCondemned() {
			return l, nil
		}
		l.close()
	}
	l, err := dial(ctx, g.log, g.vault, g.noCgroup)
	for range dialAgain {
		if !errors.Is(err, errNotReady) {
			break
		}
		l, err = dial(ctx, g.log, g.vault, g.noCgroup)
	}
	if err != nil {
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		l.close()
		return nil, ErrClosed
	}
	g.link = l
	// Also when there is none: it readies both for the messages to come.
	l.send(message{Kind: msgDeadline, Deadline: g.deadline})
	l.send(message{Kind: msgCertificate, Certificate: g.dead})
	return l, nil
}

// SetDeadline says until when the command may live, the one that runs now as
// well as later ones: it is killed at t, whatever becomes of highlander, and
// none is started later than t. The zero time stands for no deadline. Set it
// before Run; move it at any time.
func (g *Guard) SetDeadline(t time.Time) {
	at := instantOf(t)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	g.deadline = at
	g.expiry.Set(at)
	g.link.send(message{Kind: msgDeadline, Deadline: at})
}

// Testifies says whether a guard gives out what it was given by SetCertificate.
const Testifies = true

// SetCertificate says what the guard tells the peers when highlander has died
// and nothing of the command is left. The newest counts, for this guard and
// those that follow it; the zero Certificate stands for nothing to say. Set it
// before Run.
func (g *Guard) SetCertificate(c Certificate) {
	c = c.bounded(g.log)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	g.dead = c
	g.link.send(message{Kind: msgCertificate, Certificate: c})
}

// Holds says whether a guard keeps open what it was given by Hold.
const Holds = true

// Hold keeps c open until this process is dead and nothing of the command is left,
// or until let is called: the end of a connection then tells its peer of both. Let
// it go before it is closed. The helpers have it by the time Hold returns.
func (g *Guard) Hold(c net.Conn) (let func(), err error) { return g.vault.put(c) }

// Signal sends sig to the process group of the command, if one runs. SIGKILL
// kills all of it.
func (g *Guard) Signal(sig syscall.Signal) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.link.send(message{Kind: msgSignal, Signal: sig})
	}
}

// Close kills what still runs and ends guard and keeper, which say nothing of
// it to the peers. It returns when all of them are gone. It is idempotent.
func (g *Guard) Close() {
	g.mu.Lock()
	first, l := !g.closed, g.link
	g.closed = true
	g.mu.Unlock()
	l.close()
	g.running.Lock() // Run looks at the alarm
	defer g.running.Unlock()
	if first {
		g.vault.close()
		g.expiry.Close()
	}
}

// Run runs cmd and returns when nothing of it is left: no process it forked,
// directly or not. When ctx ends, or when the main process has ended and left
// others behind, the command gets SIGTERM, and SIGKILL after cmd.Shutdown.
//
// The error is nil if the command was started and ended, in whatever way: Exit
// says how, and ctx whether it was told to. Otherwise it is ErrDeadline,
// ErrClosed, ErrGuardDied, the cause of ctx if that ended first, or a
// *CommandError if the command cannot be started. After ErrGuardDied the next
// Run starts a new guard. A second Run at the same time is an error.
func (g *Guard) Run(ctx context.Context, cmd Command) (Exit, error) {
	if !g.running.TryLock() {
		return Exit{}, errBusy
	}
	defer g.running.Unlock()
	if ctx.Err() != nil {
		return Exit{}, context.Cause(ctx)
	}
	l, err := g.connect(ctx)
	if err != nil {
		return Exit{}, err
	}
	r := &run{log: g.log, link: l, cmd: cmd, hang: time.NewTimer(startGrace), again: newRepeat()}
	defer r.hang.Stop()
	defer r.again.Stop()
	if err := g.start(r); err != nil {
		return Exit{}, err
	}
	return g.follow(ctx, r)
}

func (g *Guard) start(r *run) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.deadline.passed() {
		return ErrDeadline
	}
	g.runs++
	r.number = g.runs
	r.link.starts()
	r.link.send(message{
		Kind: msgStart, Run: r.number,
		Path: r.cmd.Path, Args: r.cmd.Args, Env: r.cmd.Env, Dir: r.cmd.Dir, Shutdown: r.cmd.Shutdown,
	})
	return nil
}

// run is one command, from highlander's side.
type run struct {
	log    *slog.Logger
	link   *link
	cmd    Command
	number uint64
	exit   Exit
	hang   *time.Timer // runs while the start or the end is waited for
	ending bool        // the end is
	again  repeat      // from the deadline on
}

// follow returns when nothing of the command is left.
func (g *Guard) follow(ctx context.Context, r *run) (Exit, error) {
	done := ctx.Done()
	for {
		select {
		case m, ok := <-r.link.events:
			if !ok {
				return Exit{}, g.whyEnded() // whatever was reported before
			}
			if over, err := r.note(m); over {
				if err == nil && r.exit.Signal == syscall.SIGKILL && g.isClosed() {
					return Exit{}, ErrClosed // the guard was faster than the keeper
				}
				return r.exit, err
			}
		case <-done:
			done = nil
			g.stop(r)
		case <-g.expiry.C:
			if g.isExpired() {
				r.link.killCommand()
				r.again.start()
				r.awaitEnd(hangGrace)
			}
		case <-r.again.C:
			r.link.condemnStart()
			r.link.killCommand()
			r.again.next()
		case <-r.hang.C:
			r.escalate("it does not answer")
		}
	}
}

// note takes in a report, and says whether it is the last.
func (r *run) note(m message) (over bool, err error) {
	if m.Run != r.number {
		return false, nil
	}
	switch m.Kind {
	case msgStarted:
		if !r.ending { // else it says nothing of what is waited for
			r.hang.Stop()
		}
		r.log.Info("command started", "pid", m.PID, "command", r.cmd.Args)
		if r.link.cgroup != nil && !m.InCgroup {
			r.log.Warn("there is no room for a cgroup of the command: what leaves its session is reached by parentage only")
		}
	case msgFailed:
		if m.Expired {
			return true, ErrDeadline
		}
		return true, startError(r.cmd.Path, m.Errno)
	case msgExited:
		r.exit = exitOf(m.Code, m.Signal)
		r.log.Info("command ended", "code", r.exit.Code, "signal", r.signalName())
		if m.Others {
			r.log.Info("ending what the command left behind", "grace", r.cmd.Shutdown)
		}
	case msgGone:
		if m.Expired {
			return true, ErrDeadline
		}
		return true, nil
	}
	return false, nil
}

func (r *run) signalName() string {
	if r.exit.Signal == 0 {
		return ""
	}
	return r.exit.Signal.String()
}

// stop tells the command to end.
func (g *Guard) stop(r *run) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r.link.send(message{Kind: msgStop, Shutdown: r.cmd.Shutdown})
	r.awaitEnd(max(r.cmd.Shutdown, 0) + hangGrace)
}

// awaitEnd gives the command, and those who end it, so long.
func (r *run) awaitEnd(within time.Duration) {
	r.ending = true
	r.hang.Reset(within)
}

// escalate is for a frozen guard: when it is killed, the keeper kills the
// command. If that one is frozen too, it is next.
func (r *run) escalate(why string) {
	r.log.Warn("killing the guard, and the command with it", "why", why)
	r.link.kill()
	r.hang.Reset(hangGrace)
}

func (g *Guard) isExpired() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.deadline.passed()
}

func (g *Guard) isClosed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}

func (g *Guard) whyEnded() error {
	if g.isClosed() {
		return ErrClosed
	}
	return ErrGuardDied
}
