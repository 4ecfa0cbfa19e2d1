//go:build !race

package gossip_test

const (
	manyNodes  = 50
	manyIDs    = 5000
	sideBySide = "6" // most of the time, these tests wait
)

const raceEnabled = false
