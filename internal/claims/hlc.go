package claims

import "time"

// HLC is a hybrid logical clock value (Kulkarni et al., "Logical Physical
// Clocks", 2014): microseconds of wall clock time shifted left by hlcBits,
// and a counter below. It grows with every use, whatever the wall clock does.
type HLC uint64

const hlcBits = 8

// maxHLC bounds what is accepted from others: far beyond any wall clock, and
// far enough from the end of the range that counting on cannot wrap around.
const maxHLC = HLC(1) << 62

// maxUp bounds what is accepted of other nodes' clocks: a hundred years.
const maxUp = 100 * 365 * 24 * time.Hour

// Time returns the wall clock part of h.
func (h HLC) Time() time.Time { return time.UnixMicro(int64(h >> hlcBits)) }

type hybridClock struct{ last HLC }

// next returns a value above all that were returned or merged before.
func (c *hybridClock) next(now Instant) HLC {
	physical := HLC(max(now.Wall.UnixMicro(), 0)) << hlcBits
	c.last = max(physical, c.last+1)
	return c.last
}

// merge makes sure that all values to come are above h.
func (c *hybridClock) merge(h HLC) { c.last = max(c.last, h) }
