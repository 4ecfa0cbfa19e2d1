//go:build race

package etcd_test

// members is how many a server has where that does not matter: with the race
// detector, which is in the members, too, three of them are too slow for a
// thousand ids and a TTL of seconds.
const members = 1
