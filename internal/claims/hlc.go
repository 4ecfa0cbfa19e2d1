package claims

import "time"

// HLC is a hybrid logical clock value (Kulkarni et al., "Logical Physical
// Clocks", 2014): microseconds of wall clock time shifted left by hlcBits,
// and a counter below. It grows with every use, whatever the wall clock does.
type HLC uint64

const hlcBits = 8

// What others send is accepted up to maxAhead before this node's wall clock: who
// is a hundred years wrong is no use. The bound moves on by 256 values in each
// microsecond, and a value that follows another one is one above it. So who takes
// the clocks, tokens and epochs of others to the bound cannot keep them from
// being accepted by all whose wall clocks agree, and of the others for as long
// as their clocks differ. A fixed bound would be one to get stuck at for ever.
//
// Nothing but this depends on it: with a wall clock that is years wrong a node
// takes part all the same, and safety does not rest on clocks.
const maxAhead = 100 * 365 * 24 * time.Hour

// maxHLC keeps counting from wrapping around, whatever the wall clock says.
const maxHLC = HLC(1) << 62

// maxUp bounds what is accepted of other nodes' clocks: a hundred years.
const maxUp = 100 * 365 * 24 * time.Hour

// bound is the first value that is not accepted from others.
func bound(now time.Time) HLC {
	return min(maxHLC, HLC(max(now.Add(maxAhead).UnixMicro(), 0))<<hlcBits)
}

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
