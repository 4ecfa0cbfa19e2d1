// Package kubernetes is the engine on Kubernetes: one Lease object of
// coordination.k8s.io/v1 per id, in one namespace, renewed by its holder and
// watched by all who wait.
//
//	cluster, err := kubernetes.Open("kubernetes://jobs")
//	...
//	defer cluster.Close()
//	err = highlander.Wrap(cluster, highlander.ChildSpec{ID: "worker", Service: worker}).Serve(ctx)
//
// What a node has seen may be out of date: each write carries the version of the
// object that it is based on, and is refused if there is a newer one. An id that
// was not released is taken only after its object was seen unchanged for the whole
// duration of the lease, by the clock of the node that takes it. The holder counts
// from before the sending of its last renewal, and so is always earlier.
//
// docs/kubernetes.md has the rules, the rights that are needed and what remains.
package kubernetes
