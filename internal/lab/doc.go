// Package lab is a fault lab: it runs real highlander processes in network
// namespaces of their own, joined by a switch in user space, does to them what
// happens to machines and networks, and checks what became of the child.
//
//	node n1 [highlander - guard - keeper - child] -- TAP --+
//	node n2 [highlander - guard - keeper]         -- TAP --+-- switch (this process)
//	node n3 [highlander - guard - keeper]         -- TAP --+
//
// The children write a ledger that no node owns, by the one clock of the one
// machine. Check reads the ledger and the log of faults and says what was
// broken; it knows nothing of how highlander works.
//
// The namespaces have no names and the devices belong to descriptors of this
// process, so nothing of the network survives it. Processes that a crashed lab
// left behind are ended by the next one.
package lab
