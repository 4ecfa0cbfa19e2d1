// Package highlander runs a child exactly once in a cluster. Every replica of
// a program wraps the same child; one replica runs it, the others watch and
// take over when it goes.
//
//	sup.Add(highlander.Wrap(cluster, highlander.ChildSpec{ID: "worker", Service: worker}))
//
// The cluster is where leases come from: package highlander/gossip embeds one in
// the program, with no infrastructure; packages highlander/postgres,
// highlander/etcd and highlander/kubernetes, each a module of its own, use a
// server that you run; package highlander/highlandertest has one in memory, for
// tests.
//
// # What a child does
//
// A child runs until its context ends, cleans up, and returns. Until it has
// returned its lease is kept, so that the next one does not start beside it.
// context.Cause says why it has to stop:
//
//   - ErrShutdown: the program ends. The lease is still held.
//   - ErrConflict: a netsplit healed, the other side's child stays. It runs
//     while this one cleans up.
//   - ErrLeaseLost: the lease is about to run out, or gone. Another child may
//     start soon: be quick.
//
// All three match ErrShutdown with errors.Is.
//
// A goroutine cannot be killed. A child that takes longer than
// ChildSpec.Shutdown is waited for, logged and observed (EventOverrun); once its
// lease is lost, WithExitOnOverrun ends the process instead.
//
// A process can be frozen, or cut off, at any moment, and wake up after another
// has taken over. Where that must not do harm, send the fencing token with
// every write: see LeaseInfo.Token.
//
// # Supervisors as children
//
// A *suture.Supervisor has the shape of a Service, but it can be served only
// once: when it stops, it forgets its services. A child is run again after each
// failure and each loss, so build the supervisor where it is served. By default it
// also gives up on services that do not stop within ten seconds, and returns
// while they run; with a large Timeout it waits for them, as it must:
//
//	highlander.ServiceFunc(func(ctx context.Context) error {
//		sup := suture.New("pair", suture.Spec{Timeout: math.MaxInt64})
//		sup.Add(one)
//		sup.Add(two)
//		return sup.Serve(ctx)
//	})
//
// Singletons themselves go into any supervisor, or an errgroup, as they are:
// Serve may be called again after it has returned. The supervisor above needs a
// timeout that is longer than the children's, for the same reason.
package highlander
