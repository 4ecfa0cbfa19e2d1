package highlander

import "context"

// Run runs fn once, on one node of the cluster c, then releases the lease of
// id and returns fn's error. It is for jobs such as migrations and reports; for
// what runs all the time there is Wrap.
//
// Replicas that call Run with the same id run fn one after the other: what must
// not be done twice, fn finds already done. If the lease is lost while fn runs,
// fn is told to stop and, once it has returned, whatever it returned, is run
// again when the lease is back. If ctx ends before fn does, fn is told to stop,
// and Run returns an error that wraps ctx.Err(). An fn that panicked has failed:
// errors.As finds a *PanicError.
func Run(ctx context.Context, c Cluster, id string, fn func(context.Context) error, opts ...Option) error {
	spec := ChildSpec{ID: id, Restart: Temporary}
	if fn != nil {
		spec.Service = ServiceFunc(fn)
	}
	opts = append(opts[:len(opts):len(opts)], WithReleaseWhenDone())
	return Wrap(c, spec, opts...).Serve(ctx)
}
