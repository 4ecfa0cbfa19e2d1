// Package gossip is the embedded engine: the replicas of a program form a
// cluster of their own over the network, with no other infrastructure.
//
//	cluster, err := gossip.Join(ctx, gossip.Config{
//		Bind: "0.0.0.0:7946",
//		Join: []string{"workers.internal:7946"},
//		Keys: [][]byte{key},
//	})
//
// Membership and failure detection are those of hashicorp/memberlist (SWIM).
// Who holds an id is decided by the votes of all nodes in view
// (docs/protocol.md). The engine stays available on both sides of a netsplit:
// each side then runs the child, and when the network heals the holder on the
// smaller side stops with highlander.ErrConflict (docs/guarantees.md).
//
// With Config.Quorum it is the other way round: a lease takes the votes of more
// than half of all voters and runs out unless they renew it. So there are never
// two, and a side without a quorum stops what it runs.
package gossip
