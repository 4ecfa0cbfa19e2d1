// Package highlander runs a child exactly once in a cluster. Every replica of
// a program wraps the same child; one replica runs it, the others watch and
// take over when it goes.
//
//	sup.Add(highlander.Wrap(cluster, highlander.ChildSpec{ID: "worker", Service: worker}))
//
// The cluster is where leases come from: package highlander/gossip embeds one
// in the program, with no infrastructure.
package highlander
