//go:build !race

package etcd_test

// members is how many a server has where that does not matter.
const members = 3
