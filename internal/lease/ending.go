package lease

import (
	"slices"
	"sync"
)

// Ending is what the holder of a lease sees of its end, which comes once: Done,
// Err and AfterFunc of a highlander.Lease. All methods may be called concurrently.
type Ending struct {
	done chan struct{}

	mu    sync.Mutex
	err   error    // why it has ended; nil before
	after []*after // to be run then
}

// after is a function that AfterFunc was given. There is one per lease, as a
// rule; a context would take several times the memory.
type after struct{ run func() }

// NewEnding returns the ending of a lease that is held.
func NewEnding() *Ending { return &Ending{done: make(chan struct{})} }

// Finish ends the lease for a reason, unless it has ended.
func (e *Ending) Finish(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err != nil {
		return
	}
	e.err = err
	close(e.done)
	for _, a := range e.after {
		go a.run()
	}
	e.after = nil
}

// Done is closed when the lease has ended.
func (e *Ending) Done() <-chan struct{} { return e.done }

// Err says why; nil before.
func (e *Ending) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// AfterFunc is what context.AfterFunc is, for the end of the lease. It spares a
// Singleton the goroutine that would wait for Done.
func (e *Ending) AfterFunc(f func()) (stop func() bool) {
	a := &after{run: f}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err != nil {
		go a.run()
		return func() bool { return false }
	}
	e.after = append(e.after, a)
	return func() bool { return e.forget(a) }
}

// forget takes a back, and returns whether it had not been run.
func (e *Ending) forget(a *after) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := slices.Index(e.after, a)
	if i < 0 {
		return false
	}
	e.after = slices.Delete(e.after, i, i+1)
	return true
}
