//go:build !race

package gossip_test

const (
	manyNodes = 50
	manyIDs   = 5000
)

const raceEnabled = false
