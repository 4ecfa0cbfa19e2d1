//go:build race

package gossip_test

// manyNodes share one process and two slow cores: with the race detector, fewer
// of them are many, of ids as well, and fewer tests run side by side.
const (
	manyNodes  = 15
	manyIDs    = 500
	suiteIDs   = 200 // for the suite
	sideBySide = "4"
)

const raceEnabled = true
