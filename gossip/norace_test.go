//go:build !race

package gossip_test

const manyNodes = 50

const raceEnabled = false
