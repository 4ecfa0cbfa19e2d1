package gossip

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"highlander/internal/nodename"
)

// votersByName counts the voters among members as quorum mode does, by name: a
// node that was started anew is the same voter. Those that share a name with
// another do not count.
func votersByName(members []Member) (count int) {
	named := map[string]int{}
	for _, m := range members {
		if !m.Observer {
			name, _, _ := nodename.Split(m.Name)
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
	lacking int  // ticks for which there was none, though there had been
	votes   bool // this node does, as it was told
	shared  trouble
	excess  trouble
}

// trouble is something wrong with the names of the voters.
type trouble struct {
	ticks  int  // for which it has been there
	told   bool // since then
	logged throttle
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

// lackingTicks is after how many ticks without a quorum that is logged: at the
// start of a cluster views come and go.
const lackingTicks = 2

// logQuorum tells of a quorum that was found.
func (a *agent) logQuorum(inView int) {
	q := &a.quorum
	if inView < a.c.rules().quorum {
		return
	}
	q.lacking = 0
	switch q.phase {
	case quorumNeverSeen:
		a.tellQuorum(slog.LevelInfo, quorumSeen, "there is a quorum", inView)
	case quorumLost:
		a.tellQuorum(slog.LevelInfo, quorumSeen, "the quorum is back", inView)
	}
}

// tickLacking tells of a quorum that was lost, unless this node is leaving.
func (a *agent) tickLacking(inView int) {
	q := &a.quorum
	if inView >= a.c.rules().quorum || q.phase != quorumSeen || a.closing {
		return
	}
	if q.lacking++; q.lacking >= lackingTicks {
		a.tellQuorum(slog.LevelWarn, quorumLost, "no quorum: what is held here runs out, and nothing new can be held", inView)
	}
}

func (a *agent) tellQuorum(level slog.Level, phase quorumPhase, text string, inView int) {
	a.quorum.phase = phase
	r := a.c.rules()
	a.log.Log(context.Background(), level, text, "voters", inView, "of", r.voters, "needed", r.quorum)
}

// tickQuorum tells when this node votes, after which another one may be restarted,
// and once in a while what is wrong with the names of the voters.
func (a *agent) tickQuorum() {
	q := &a.quorum
	if votes := a.machine.Votes(); votes && !q.votes {
		q.votes = true
		a.log.Info("this node votes from now on")
	}
	members, _ := a.membership()
	a.tickLacking(votersByName(members))
	a.tickShared()
	if len(a.machine.Excess()) > 0 {
		a.quorum.excess.ticks++
	}
	a.logExcess(members)
}

func (a *agent) tickShared() {
	t, names := &a.quorum.shared, a.machine.Shared()
	if len(names) == 0 {
		t.ticks = 0
		return
	}
	if t.ticks++; t.ticks >= a.c.rules().troubleTicks() && t.logged.ready(troubleEvery) {
		a.log.Error("nodes share a name, so that the votes of none of them count: give each a name of its own (Config.Name, name=)", "names", names)
	}
}

// logExcess tells of too many voters: at once of those in view, and of those that
// are gone when they are not out of the way by themselves.
func (a *agent) logExcess(members []Member) {
	t, r, gone := &a.quorum.excess, a.c.rules(), a.machine.Excess()
	if len(gone) == 0 {
		if t.told {
			a.log.Info("there are no more voters than the cluster is configured for now", "configured", r.voters)
		}
		*t = trouble{logged: t.logged}
		return
	}
	inView := voterNames(members)
	if len(inView) <= r.voters && t.ticks < r.troubleTicks() || !t.logged.ready(troubleEvery) {
		return
	}
	t.told = true
	gone = slices.DeleteFunc(gone, func(name string) bool { return slices.Contains(inView, name) })
	a.log.Error("there are more voters than the cluster is configured for, so that nothing new can be held: set their number on all nodes (Config.Expect, expect=), or stop some",
		"configured", r.voters, "in_view", inView, "gone", gone)
}

// voterNames returns the names of the voters among members, each once.
func voterNames(members []Member) (names []string) {
	for _, m := range members {
		if !m.Observer {
			name, _, _ := nodename.Split(m.Name)
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
