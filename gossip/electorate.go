package gossip

import "time"

// votersByName counts the voters among members as quorum mode does, by name: a
// node that was started anew is the same voter. Those that share a name with
// another do not count.
func votersByName(members []Member) (count int) {
	named := map[string]int{}
	for _, m := range members {
		if !m.Observer {
			name, _, _ := splitName(m.Name)
			named[name]++
		}
	}
	for _, n := range named {
		if n == 1 {
			count++
		}
	}
	return count
}

// inView counts the voters among members.
func (r rules) inView(members []Member) (count int) {
	if r != (rules{}) {
		return votersByName(members)
	}
	for _, m := range members {
		if !m.Observer {
			count++
		}
	}
	return count
}

// quorumLog tells an operator whether this node sees a quorum, and what is wrong
// with the names of the voters.
type quorumLog struct {
	phase   quorumPhase
	votes   bool // this node does, as it was told
	trouble int  // ticks for which there has been some
	logged  throttle
}

type quorumPhase int

const (
	quorumNeverSeen quorumPhase = iota
	quorumSeen
	quorumLost
)

const troubleEvery = time.Minute

// troubleTicks is after how many ticks trouble with the names is logged. A voter
// that crashed and was started anew shares its name with the one that crashed as
// long as a vote of that one may be bound. It is no news.
func (r rules) troubleTicks() int {
	return int(max(10*time.Second, r.ttl+r.ttl/25+5*time.Second) / tickEvery)
}

// logQuorum tells of a quorum that was lost or found.
func (a *agent) logQuorum(inView int) {
	q, r := &a.quorum, a.c.rules()
	tell := func(phase quorumPhase, text string) {
		q.phase = phase
		a.log.Info(text, "voters", inView, "of", r.voters, "needed", r.quorum)
	}
	switch enough := inView >= r.quorum; {
	case enough && q.phase == quorumNeverSeen:
		tell(quorumSeen, "there is a quorum")
	case enough && q.phase == quorumLost:
		tell(quorumSeen, "the quorum is back")
	case !enough && q.phase == quorumSeen:
		tell(quorumLost, "no quorum: what is held here runs out, and nothing new can be held")
	}
}

// tickQuorum tells when this node votes, after which another one may be restarted,
// and once in a while what is wrong with the names of the voters.
func (a *agent) tickQuorum() {
	q := &a.quorum
	if votes := a.machine.Votes(); votes && !q.votes {
		q.votes = true
		a.log.Info("this node votes from now on")
	}
	shared, excess := a.machine.Shared(), a.machine.Excess()
	if len(shared) == 0 && len(excess) == 0 {
		q.trouble = 0
		return
	}
	if q.trouble++; q.trouble < a.c.rules().troubleTicks() || !q.logged.ready(troubleEvery) {
		return
	}
	if len(shared) > 0 {
		a.log.Error("nodes share a name, so that the votes of none of them count: give each a name of its own (Config.Name, name=)", "names", shared)
	}
	if len(excess) > 0 {
		a.log.Error("there are more voters than the cluster is configured for, so that nothing new can be held: set their number on all nodes (Config.Expect, expect=), or stop some",
			"configured", a.c.rules().voters, "voters", len(excess), "names", excess)
	}
}
