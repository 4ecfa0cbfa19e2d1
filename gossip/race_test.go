//go:build race

package gossip_test

// manyNodes share one process and two slow cores: with the race detector, fewer
// of them are many, and of ids.
const (
	manyNodes = 15
	manyIDs   = 500
)

const raceEnabled = true
