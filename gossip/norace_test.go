//go:build !race

package gossip_test

const manyNodes = 50
