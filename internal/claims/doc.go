// Package claims decides who holds an id in the embedded cluster. It is the
// protocol as a library: a state machine without goroutines, clocks, sockets
// or randomness. Package gossip carries out what it says; the simulation in
// the tests does so in virtual time, with faults.
//
// The words and the numbers of the rules ("rule 11") are those of
// docs/protocol.md. In short: every node has one vote per id and gives it to
// the best claim it knows of; a claim with the votes of all voters in view
// wins a fencing token, and its lease is handed out when all of them have
// acknowledged that token. Who waits is served in the order of the stamps.
// When two holders meet, as after a netsplit, the one with fewer votes yields.
//
// That is available mode. In quorum mode a fixed number of votes is enough, and
// needed: beats bind them, and a lease runs out before the first of them may
// move. So two leases are never valid at once. What the modes do each in their own
// way is in the type mode.
//
// The one message is the State of an id: newer replaces older, so loss,
// repetition and reordering do no harm.
package claims
