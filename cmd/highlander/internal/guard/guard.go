package guard

import (
	"errors"
	"log/slog"
	"syscall"
	"time"
)

var (
	// ErrGuardDied is returned by Run when the guard or the keeper ended
	// before the command did. The command is gone too.
	ErrGuardDied = errors.New("the guard died, and the command with it")

	// ErrDeadline is returned by Run when the command was killed because its
	// deadline passed, or was not started because it already had.
	ErrDeadline = errors.New("the command may not live beyond its deadline")

	// ErrClosed is returned by Run after Close, or when Close ended the
	// command.
	ErrClosed = errors.New("the guard is closed")

	errBusy = errors.New("the guard runs another command")
)

// Options go with Start.
type Options struct {
	Logger *slog.Logger // slog.Default() if nil

	noCgroup bool // for tests of what goes without
}

// Command is what Run runs.
type Command struct {
	Path     string        // the executable, as LookPath returns it
	Args     []string      // the arguments, the name of the command first
	Env      []string      // the whole environment, as key=value
	Dir      string        // working directory; highlander's if empty
	Shutdown time.Duration // from SIGTERM to SIGKILL; zero or less kills at once
}

// Exit says how the command's main process ended.
type Exit struct {
	// Code is the exit code, or 128 + Signal as a shell has it.
	Code int
	// Signal is what killed it; zero if it exited by itself.
	Signal syscall.Signal
}

// Certificate is what the guard tells the cluster when highlander is dead and
// nothing of its command is left: until then it is nobody's word.
type Certificate struct {
	Frame []byte   // what to write to each peer, which answers with a byte
	Peers []string // host:port, TCP
}
