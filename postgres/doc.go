// Package postgres is the engine on PostgreSQL, 14 or later: a Cluster keeps its
// leases in a schema of a database that the program has anyway.
//
// Session-level advisory locks say who has an id; three small tables keep tokens,
// holders and queues; notifications call the next holder. A node has two
// connections of its own, however many ids it has. What that promises is in
// docs/guarantees.md, the rights it needs are in docs/postgres.md.
//
// A lease is taken over when its holder says that it is over; at once when it is
// proved that the process of the holder is dead; else when it was not renewed for
// its TTL.
package postgres
