// Package lease is what the engines on servers share: the leases of a node, and
// the order in which its calls of Acquire have their turn.
//
// A lease runs out by the boot clock unless it is renewed. Its holder is told
// StopWithin, and Margin, before that. From then on nothing revives it: a child
// that was told to stop stops. But the claim at the server stays until Release,
// or until the lease has run out, so that nobody else gets the id while the
// child stops, another Acquire in this process included.
//
// Deadlines count from before the sending of the renewal that succeeded last
// (Terms.Until), never from the reply.
package lease
