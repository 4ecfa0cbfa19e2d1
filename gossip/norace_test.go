//go:build !race

package gossip_test

const (
	manyNodes  = 50
	manyIDs    = 5000
	suiteIDs   = 0   // the suite's own number
	sideBySide = "6" // most of the time, these tests wait
)

const raceEnabled = false
