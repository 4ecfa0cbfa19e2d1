package highlander

import "log/slog"

// Option changes how a Singleton behaves; see Wrap.
type Option func(*options)

type options struct {
	logger          *slog.Logger // nil: slog.Default when Serve starts
	observer        func(Event)  // nil: none
	releaseWhenDone bool
	exitOnOverrun   bool
}

// WithLogger logs to logger instead of slog.Default. The steps of a take-over
// are logged at level info, failures of the child at warn, giving up at error,
// and the id in use at debug.
func WithLogger(logger *slog.Logger) Option {
	return func(o *options) { o.logger = logger }
}

// WithObserver calls observe for every Event, in the order in which they
// happen; of several observers, the last one given counts. There is one
// call at a time, and the singleton goes on when observe returns: an observer
// that blocks delays the stop of the child and the release of the lease. What is
// slow belongs into a goroutine of its own. A panic in observe is logged and
// has no other effect.
func WithObserver(observe func(Event)) Option {
	return func(o *options) { o.observer = observe }
}

// WithReleaseWhenDone makes Serve release the lease and return as soon as the
// child is done. Without it the lease is kept while Serve runs, so that no
// other node runs the child a second time.
func WithReleaseWhenDone() Option {
	return func(o *options) { o.releaseWhenDone = true }
}

// WithExitOnOverrun ends the process, with exit code 1, when the lease is lost
// and the child is still running shortly before another node may start: 200 ms
// before Lease.Expires, of which observers and the logger get one half at most.
// The cluster is asked to tell the child so much earlier, so that it has all of
// ChildSpec.Shutdown to stop. If the engine knows of no such moment, the process
// ends ChildSpec.Shutdown after the loss. After a suspend of the machine it ends
// as soon as that runs again. A goroutine cannot be killed, a process can. While
// the lease is kept, a child may take as long as it likes to stop: a mere
// shutdown never exits.
func WithExitOnOverrun() Option {
	return func(o *options) { o.exitOnOverrun = true }
}
