package highlandertest

import (
	"slices"
	"time"

	"highlander"
)

// contest is one id: who claims it, and whom each node takes for its holder.
type contest struct {
	claims []*claim // of nodes that did not crash, oldest first
	views  map[*node]view
	last   uint64 // the newest token
}

// view is what one node knows of an id.
type view struct {
	holder *claim // nil if nobody holds it
	floor  uint64 // the largest token the node has heard of
}

// settle leaves one holder on a side, if anybody there claims the id, and tells
// every node of the side.
func (ct *contest) settle(side []*node, now time.Time) {
	holder := ct.judge(side)
	if holder == nil {
		holder = ct.oldest(side)
	}
	var floor uint64
	for _, n := range side {
		floor = max(floor, ct.views[n].floor)
	}
	if holder != nil {
		if holder.token == 0 {
			ct.last++
			holder.win(ct.last, now)
		}
		if holder.token < floor { // it stays, though others won later
			ct.last++
			holder.token = ct.last
		}
		floor = max(floor, holder.token)
	}
	for _, n := range side {
		ct.views[n] = view{holder, floor}
	}
}

// judge returns the holder on a side, nil if there is none. If there are
// several, as after a netsplit, it ends all but one: the one that more nodes
// stand behind, of equals the one with the larger winning token.
func (ct *contest) judge(side []*node) *claim {
	var best *claim
	for _, cl := range slices.Clone(ct.claims) {
		if cl.token == 0 || !slices.Contains(side, cl.node) {
			continue
		}
		if best == nil {
			best = cl
			continue
		}
		loser := cl
		if ct.outranks(cl, best, side) {
			loser, best = best, cl
		}
		ct.remove(loser)
		loser.end(highlander.ErrConflict)
	}
	return best
}

// outranks reports whether a is the one of two holders that stays.
func (ct *contest) outranks(a, b *claim, side []*node) bool {
	if behindA, behindB := ct.behind(a, side), ct.behind(b, side); behindA != behindB {
		return behindA > behindB
	}
	return a.won > b.won
}

// behind counts the nodes of a side that take cl for the holder.
func (ct *contest) behind(cl *claim, side []*node) int {
	count := 0
	for _, n := range side {
		if ct.views[n].holder == cl {
			count++
		}
	}
	return count
}

// oldest returns who has waited longest on a side, nil if nobody waits.
func (ct *contest) oldest(side []*node) *claim {
	for _, cl := range ct.claims {
		if slices.Contains(side, cl.node) {
			return cl
		}
	}
	return nil
}

// remove takes a claim out. Its own node knows of that even if it is frozen.
func (ct *contest) remove(cl *claim) {
	ct.claims = slices.DeleteFunc(ct.claims, func(other *claim) bool { return other == cl })
	if v := ct.views[cl.node]; v.holder == cl {
		ct.views[cl.node] = view{nil, v.floor}
	}
}
