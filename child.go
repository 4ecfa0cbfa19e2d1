package highlander

import (
	"context"
	"fmt"
	"time"
)

// Service is something that runs until its context ends. It has the shape of
// suture.Service, so a *suture.Supervisor is one, with everything below it. As a
// supervisor can be served only once, and a child may be run again, build it in
// a ServiceFunc: see the example of package highlander.
//
// Serve must return soon after ctx ends: the lease is released only after it
// has returned. context.Cause(ctx) then says why (ErrShutdown, ErrConflict,
// ErrLeaseLost). A panic counts as a failure.
type Service interface {
	Serve(ctx context.Context) error
}

// ServiceFunc is a function as a Service.
type ServiceFunc func(ctx context.Context) error

// Serve calls f.
func (f ServiceFunc) Serve(ctx context.Context) error { return f(ctx) }

// Restart says when a child that ended by itself is run again, as in OTP's
// child specifications.
type Restart int

const (
	// Permanent children are always restarted.
	Permanent Restart = iota
	// Transient children are restarted if they failed: returned an error or
	// panicked. One that returned nil is done.
	Transient
	// Temporary children are never restarted: however they end, they are done.
	Temporary
)

// String returns the name of r in lower case.
func (r Restart) String() string {
	switch r {
	case Permanent:
		return "permanent"
	case Transient:
		return "transient"
	case Temporary:
		return "temporary"
	}
	return fmt.Sprintf("Restart(%d)", int(r))
}

// What a zero field of ChildSpec stands for.
const (
	DefaultShutdown    = 5 * time.Second
	DefaultMaxRestarts = 3
	DefaultWindow      = 5 * time.Second
)

// ChildSpec describes a child.
type ChildSpec struct {
	// ID is the uniqueness key: of all singletons in the cluster with the same
	// ID, one runs its child. Required; at most MaxIDLen bytes of UTF-8
	// without control characters.
	ID string

	// Service is the child. Required.
	Service Service

	// Restart says when a child that ended by itself is run again.
	Restart Restart

	// Shutdown is how long the child may take to stop; DefaultShutdown if
	// zero. A child that takes longer is waited for all the same: see
	// WithExitOnOverrun.
	Shutdown time.Duration

	// MaxRestarts is how many restarts are allowed within Window. One more,
	// and Serve gives the lease to another node and returns
	// ErrTooManyRestarts. DefaultMaxRestarts if zero, none if negative.
	MaxRestarts int

	// Window is the time in which restarts are counted; DefaultWindow if zero.
	Window time.Duration

	// Meta is what Lookup tells others, such as the address the child listens
	// on. At most MaxMetaLen bytes of UTF-8 without control characters.
	Meta string
}

// withDefaults returns spec with its zero fields filled in, or what is wrong
// with it.
func (spec ChildSpec) withDefaults() (ChildSpec, error) {
	if err := ValidateID(spec.ID); err != nil {
		return spec, fmt.Errorf("highlander: ChildSpec.ID: %w", err)
	}
	bad := func(field string, value any, allowed string) error {
		return fmt.Errorf("highlander: child %q: ChildSpec.%s is %v; %s", spec.ID, field, value, allowed)
	}
	switch {
	case spec.Service == nil:
		return spec, bad("Service", "nil", "a child needs one")
	case spec.Restart < Permanent || spec.Restart > Temporary:
		return spec, bad("Restart", spec.Restart, "Permanent, Transient and Temporary are allowed")
	case spec.Shutdown < 0:
		return spec, bad("Shutdown", spec.Shutdown, "it must not be negative (zero means "+DefaultShutdown.String()+")")
	case spec.Window < 0:
		return spec, bad("Window", spec.Window, "it must not be negative (zero means "+DefaultWindow.String()+")")
	}
	if err := validateMeta(spec.Meta); err != nil {
		return spec, fmt.Errorf("highlander: child %q: ChildSpec.Meta: %w", spec.ID, err)
	}
	if spec.Shutdown == 0 {
		spec.Shutdown = DefaultShutdown
	}
	if spec.Window == 0 {
		spec.Window = DefaultWindow
	}
	switch {
	case spec.MaxRestarts == 0:
		spec.MaxRestarts = DefaultMaxRestarts
	case spec.MaxRestarts < 0:
		spec.MaxRestarts = 0
	}
	return spec, nil
}
