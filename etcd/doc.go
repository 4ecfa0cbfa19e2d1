// Package etcd is the engine for those who run etcd: the leases of a cluster are
// kept there.
//
// A process has one lease in etcd and one watch, whatever the number of its ids.
// Each call of Acquire has a key, its claim, which is attached to that lease; of the
// claims of an id the oldest is next. The holder of an id is written in a record,
// which stays: it says whether the last holder has released the id, and has the
// highest token. A claim that is gone without a word of its holder is not enough
// for another to start: its child may be running still. See docs/etcd.md for the
// keys, and docs/guarantees.md for what is promised.
package etcd
