package claims

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A mutation takes one rule out of the machine. It has to be noticed: by the
// simulation with some profile, or by a script or another test.
type mutation struct {
	rule  string // number and name
	edits []edit

	profile string // of the simulation, and ...
	seeds   int    // ... how many to look at, or
	tests   string // the tests that fail
	kinds   string // what is violated: a regular expression
}

// edit replaces old, which must occur exactly once in file.
type edit struct{ file, old, new string }

var mutations = []mutation{
	{
		rule:    "3 what is not acknowledged is sent again each second",
		edits:   []edit{{"machine.go", "if l.sent+1 < m.ticks || !p.busy {", "if false {"}},
		profile: "calm", seeds: 100, kinds: "none|lookup|memory",
	},
	{
		rule:  "3 what is being acknowledged is not sent twice",
		edits: []edit{{"machine.go", "l.sent+1 < m.ticks || !p.busy", "true"}},
		tests: "TestStatesUnderWay", kinds: "States",
	},
	{
		rule:  "3 an id that does not change sends nothing",
		edits: []edit{{"machine.go", "if l.acked >= r.ver {\n\t\t\tcontinue", "if l.acked > r.ver {\n\t\t\tcontinue"}},
		tests: "TestScripts/02", kinds: "script",
	},
	{
		rule:    "3 a State that asks for it is answered",
		edits:   []edit{{"machine.go", "if u.WantAck && p.inView {", "if false {"}},
		profile: "clean", seeds: 100, kinds: "none",
	},
	{
		rule:    "3 a node that comes gets every id",
		edits:   []edit{{"machine.go", "voter\n\tm.sendEvery(p)", "voter"}},
		profile: "partial", seeds: 200, kinds: "two-lasting|lookup|token",
	},
	{
		rule:  "3 a node that had given this one up gets every id",
		edits: []edit{{"machine.go", "again := p.heldSince != 0", "again := false"}},
		tests: "TestScripts/12", kinds: "script",
	},
	{
		rule:    "4 only a newer State replaces the one known",
		edits:   []edit{{"machine.go", "l.state == nil || u.Ver > l.state.Ver", "true"}},
		profile: "race", seeds: 100, kinds: "none|lookup",
	},
	{
		rule:    "4 the State of a node out of view is not used",
		edits:   []edit{{"available.go", "return p.inView && !p.silent()", "return !p.silent()"}},
		profile: "clean", seeds: 100, kinds: "none",
	},
	{
		// The simulation cannot see this one: a node that comes back is told
		// everything anew, so what was kept spares one round of messages.
		rule: "4 the State of a departed node is kept",
		edits: []edit{{"machine.go", "m.clearOutbox(p)\n\tm.touchAll()",
			"m.clearOutbox(p)\n\tfor _, r := range m.ids {\n\t\tm.link(r, p).state = nil\n\t}\n\tm.touchAll()"}},
		tests: "TestScripts/09", kinds: "script",
	},
	{
		// Nor this one, for the same reason.
		rule:  "4 the State of a node out of view is stored",
		edits: []edit{{"machine.go", "if l.state == nil || u.Ver > l.state.Ver {", "if p.inView && (l.state == nil || u.Ver > l.state.Ver) {"}},
		tests: "TestScripts/18", kinds: "script",
	},
	{
		rule:  "4 the State of a departed node is forgotten in time",
		edits: []edit{{"machine.go", "goneTicks   = 120 ", "goneTicks   = 3600 "}},
		tests: "TestNodesThatComeAndGo", kinds: "are kept",
	},
	{
		rule:    "5 the clock is merged on every receipt",
		edits:   []edit{{"machine.go", "m.clock.merge(msg.HLC)", ""}},
		profile: "race", seeds: 100, kinds: "order",
	},
	{
		rule:    "5 clocks are exchanged at join",
		edits:   []edit{{"machine.go", "if h < bound(now.Wall) {\n\t\tm.clock.merge(h)", "if h < bound(now.Wall) {"}},
		profile: "clean", seeds: 200, kinds: "order",
	},
	{
		rule:    "5 claims are ordered by stamp",
		edits:   []edit{{"state.go", "return c.Stamp < d.Stamp", "return c.Stamp > d.Stamp"}},
		profile: "race", seeds: 50, kinds: "order",
	},
	{
		rule:  "5 claims of one instant are ordered by node",
		edits: []edit{{"state.go", "return c.Node < d.Node", "return false"}},
		tests: "TestClaimsOfOneInstant", kinds: "before",
	},
	{
		rule:    "6 the claims of silent nodes are not live",
		edits:   []edit{{"available.go", "return p.inView && !p.silent()", "return p.inView"}},
		profile: "tcp", seeds: 100, kinds: "stall",
	},
	{
		rule:    "7 a holder is better than any waiting claim",
		edits:   []edit{{"voter.go", "if c.token != d.token {", "if c.token != 0 && d.token != 0 && c.token != d.token {"}},
		profile: "tcp", seeds: 100, kinds: "lookup",
	},
	{
		// It matters while two holders settle who stays: all say the same then.
		rule:  "7 of holders the one with the highest token is best",
		edits: []edit{{"voter.go", "return c.token > d.token", "return c.token != 0 && (d.token == 0 || c.token < d.token)"}},
		tests: "TestScripts/06", kinds: "script",
	},
	{
		rule: "8 a vote whose claim is not live is free",
		edits: []edit{
			{"voter.go", "case voted == nil:\n\t\treturn true", "case voted == nil:\n\t\treturn r.vote.Claim == (Claim{})"},
			{"voter.go", "recall := best != voted && voted.token == 0", "recall := best != voted && voted != nil && voted.token == 0"},
		},
		profile: "calm", seeds: 50, kinds: "none",
	},
	{
		rule:    "8 a vote that was given back is free",
		edits:   []edit{{"voter.go", "ret >= r.vote.Epoch", "ret > r.vote.Epoch"}},
		profile: "clean", seeds: 100, kinds: "none",
	},
	{
		rule:    "8 a vote for a waiting claim of one's own is free",
		edits:   []edit{{"voter.go", "return voted.token == 0 && best != voted", "return false"}},
		profile: "tcp", seeds: 100, kinds: "none|stall",
	},
	{
		rule:    "8 a vote for a holder of one's own is not free",
		edits:   []edit{{"voter.go", "return voted.token == 0 && best != voted", "return best != voted"}},
		profile: "split", seeds: 600, kinds: "smaller-side",
	},
	{
		// Not to recall a vote from a holder cannot be seen from outside: it
		// would not give it back.
		rule:    "9 a vote is recalled when another claim is best",
		edits:   []edit{{"voter.go", "recall := best != voted && voted.token == 0", "recall := false"}},
		profile: "clean", seeds: 100, kinds: "none",
	},
	{
		// Here and below, where a vote counts too often, the simulation sees
		// nothing: all votes are needed, that of the rival's own node as well.
		// The scripts show the win that comes too early.
		rule:  "10 a vote that was given back does not count",
		edits: []edit{{"claimant.go", "&& l.state.Vote.Epoch > l.gave", ""}},
		tests: "TestScripts/13", kinds: "script",
	},
	{
		rule:    "10 a recalled vote is given back",
		edits:   []edit{{"claimant.go", "o.token != 0 || !vote.Recall", "true"}},
		profile: "clean", seeds: 100, kinds: "none",
	},
	{
		// The State without the claim frees the vote, too. It is the same
		// message, so only the script sees it.
		rule:  "10 a vote for a claim that is no more is given back",
		edits: []edit{{"claimant.go", "o != nil && (o.token != 0 || !vote.Recall)", "o == nil || o.token != 0 || !vote.Recall"}},
		tests: "TestScripts/03", kinds: "script",
	},
	{
		rule:    "11 the votes of all voters in view are needed",
		edits:   []edit{{"available.go", "if !a.m.link(r, p).votesFor(o.Claim) {\n\t\t\treturn false", "if !a.m.link(r, p).votesFor(o.Claim) {\n\t\t\tcontinue"}},
		profile: "race", seeds: 300, kinds: "order",
	},
	{
		rule:    "11 when any is passed over, more than half of the view is needed",
		edits:   []edit{{"available.go", "return votes == voters || 2*votes > voters", "return true"}},
		profile: "tcp", seeds: 100, kinds: "two",
	},
	{
		rule:  "11 observers are not waited for",
		edits: []edit{{"available.go", "!p.inView || !p.voter", "!p.inView"}},
		tests: "TestScripts/11", kinds: "script",
	},
	{
		rule:  "11 observers do not vote",
		edits: []edit{{"voter.go", "m.cfg.Observer || !m.mode.mayVote()", "!m.mode.mayVote()"}},
		tests: "TestScripts/11", kinds: "script",
	},
	{
		// The clock of a message is never below the tokens in it, so a token is
		// above the floor for two reasons. This takes out both.
		rule: "11 a token is above the floor",
		edits: []edit{
			{"claimant.go", "m.clock.merge(HLC(r.floor))", ""},
			{"machine.go", "m.clock.merge(HLC(r.floor))", ""},
			{"machine.go", "m.clock.merge(msg.HLC)", ""},
		},
		profile: "split", seeds: 100, kinds: "token",
	},
	{
		rule:  "11 once won, no vote is given back",
		edits: []edit{{"claimant.go", "o.token != 0 || !vote.Recall", "!vote.Recall"}},
		tests: "TestScripts/14", kinds: "script",
	},
	{
		rule:    "12 the lease is handed out when all have acknowledged the token",
		edits:   []edit{{"available.go", "o.tokenVer != 0 && a.ackedByAll(r, o.tokenVer)", "o.tokenVer != 0"}},
		profile: "calm", seeds: 100, kinds: "lookup|token",
	},
	{
		rule:    "12 acknowledgements of silent voters are not waited for",
		edits:   []edit{{"available.go", "p.counts() && a.m.link(r, p).acked < ver", "p.inView && p.voter && a.m.link(r, p).acked < ver"}},
		profile: "tcp", seeds: 100, kinds: "stall",
	},
	{
		rule:    "13 a silent voter is passed over",
		edits:   []edit{{"machine.go", "return p.unanswered >= p.patience", "return false"}},
		profile: "tcp", seeds: 100, kinds: "stall",
	},
	{
		rule: "13 pings are counted, not timed",
		edits: []edit{{"machine.go", "m.mode.tick()", `m.mode.tick()
	for _, p := range m.peers {
		if p != nil && p.inView {
			if p.leftAt != 0 {
				p.unanswered += int(now.Up/time.Second) - int(p.leftAt) - 1
			}
			p.leftAt = uint64(now.Up / time.Second)
		}
	}
`}},
		tests: "TestScripts/08", kinds: "script",
	},
	{
		rule:  "13 a node that comes starts at zero",
		edits: []edit{{"available.go", "joining(p *peer) { p.unanswered = 0 }", "joining(*peer) {}"}},
		tests: "TestScripts/15", kinds: "script",
	},
	{
		rule:    "14 votes are counted when all have acknowledged the meeting",
		edits:   []edit{{"available.go", "if v.raised != 0 && a.ackedByAll(r, v.raised) {", "if true {"}},
		profile: "freeze", seeds: 1500, kinds: "all-lost|smaller-side",
	},
	{
		rule:    "14 the number stays while both hold",
		edits:   []edit{{"available.go", "case o.yieldsTo(v, &c):", "case func() bool { v.votes = a.countVotes(r, o); return o.yieldsTo(v, &c) }():"}},
		profile: "split", seeds: 600, kinds: "two-lasting|all-lost",
	},
	{
		// That a holder counts its own vote cannot be seen: all do, so all would
		// be one short.
		rule:    "15 the holder with fewer votes yields",
		edits:   []edit{{"available.go", "return v.votes < theirs", "return v.votes > theirs"}},
		profile: "split", seeds: 100, kinds: "smaller-side",
	},
	{
		rule:    "15 a tie is broken by the winning token",
		edits:   []edit{{"available.go", "return o.won < c.won", "return o.won > c.won"}},
		profile: "freeze", seeds: 600, kinds: "woken",
	},
	{
		rule:  "15 it is the winning token, not the current one",
		edits: []edit{{"available.go", "if o.won != c.won {\n\t\treturn o.won < c.won", "if o.token != c.token {\n\t\treturn o.token < c.token"}},
		tests: "TestScripts/16", kinds: "script",
	},
	{
		rule:  "16 a holder that is alone clears its tallies",
		edits: []edit{{"available.go", "if len(o.rivals) > 0 {", "if false {"}},
		tests: "TestScripts/17", kinds: "script",
	},
	{
		rule:    "16 a holder raises its token above the floor",
		edits:   []edit{{"available.go", "if r.floor > o.token && o.raisedAt != a.m.ticks {", "if false {"}},
		profile: "split", seeds: 100, kinds: "token",
	},
	{
		// The simulation sees no storm: a floor that was heard of is not passed
		// on before something else changes.
		rule:  "16 a token is raised at most once a tick",
		edits: []edit{{"available.go", "r.floor > o.token && o.raisedAt != a.m.ticks", "r.floor > o.token"}},
		tests: "TestScripts/18", kinds: "script",
	},
	{
		rule:    "16 the floor is carried on",
		edits:   []edit{{"voter.go", "Vote: r.vote, Floor: r.floor}", "Vote: r.vote}"}},
		profile: "mix", seeds: 200, kinds: "token",
	},
	{
		rule:    "1 a forgotten id keeps its floor",
		edits:   []edit{{"machine.go", "m.forgotten = max(m.forgotten, r.floor)", ""}},
		profile: "partial", seeds: 800, kinds: "token",
	},
	{
		rule:  "1 a forgotten id is published anew to those who remember it",
		edits: []edit{{"machine.go", "if u.Seen != 0 && r.ver == 0 {", "if false {"}},
		tests: "TestScripts/12", kinds: "script",
	},
	{
		rule:  "1 the epochs of a forgotten id are not used again",
		edits: []edit{{"machine.go", "vote: Vote{Epoch: uint64(m.clock.next(now))}, ", ""}},
		tests: "TestScripts/19", kinds: "script",
	},

	// Quorum mode.
	{
		rule:    "Q1 leaving the view frees nothing",
		edits:   []edit{{"beat.go", "return p.tie.until != 0\n", "return p.tie.until != 0 && p.inView\n"}},
		profile: "q-fp", seeds: 50, kinds: "two-leases",
	},
	{
		rule:    "Q1 claims count when a beat was counted",
		edits:   []edit{{"beat.go", "return p.tie.until != 0\n", "return p.inView || p.tie.until != 0\n"}},
		profile: "q-partial", seeds: 50, kinds: "stall",
	},
	{
		rule:  "Q2 a beat of a node that does not hear this one is not counted",
		edits: []edit{{"beat.go", "b.Echo > q.now || b.Echo < q.now-q.m.cfg.TTL", "false"}},
		tests: "TestScripts/q03", kinds: "script",
	},
	{
		rule:  "Q2 nor is a beat that is older than the TTL",
		edits: []edit{{"beat.go", "b.Echo > q.now || b.Echo < q.now-q.m.cfg.TTL", "b.Echo == 0"}},
		tests: "TestScripts/q04", kinds: "script",
	},
	{
		rule:  "Q2 a stamp that was never given is no stamp",
		edits: []edit{{"beat.go", "b.Echo > q.now || b.Echo < q.now-q.m.cfg.TTL", "b.Echo < q.now-q.m.cfg.TTL"}},
		tests: "TestEchoInAdvance", kinds: "was counted",
	},
	{
		rule:    "Q2 the stamp of an answer is echoed",
		edits:   []edit{{"beat.go", "p.tie.echo = b.Stamp\n", ""}},
		profile: "q-clean", seeds: 20, kinds: "none",
	},
	{
		rule:  "Q2 after a beat that was not counted a fresh one is sent at once",
		edits: []edit{{"beat.go", "p.tie.due = p.tie.due || b.Stamp != p.tie.echo\n", ""}},
		tests: "TestScripts/q01", kinds: "script",
	},
	{
		rule:  "Q2 but not twice for one answer",
		edits: []edit{{"beat.go", "p.tie.due || b.Stamp != p.tie.echo\n", "true\n"}},
		tests: "TestRepeatedAnswer", kinds: "beat",
	},
	{
		rule:    "Q2 a lease counts from the sending of the beat",
		edits:   []edit{{"beat.go", "p.tie.acked = b.K", "p.tie.acked = q.now"}},
		profile: "q-late", seeds: 150, kinds: "two-leases",
	},
	{
		rule:  "Q2 a beat that was not sent is not answered",
		edits: []edit{{"beat.go", "b.K <= p.tie.acked || b.K > p.tie.sent", "b.K <= p.tie.acked"}},
		tests: "TestAnswerInAdvance", kinds: "acknowledged",
	},
	{
		rule:    "Q2 a beat is sent each quarter of the TTL",
		edits:   []edit{{"beat.go", "q.beatAt = q.now + q.m.cfg.TTL/4", "q.beatAt = q.now + q.m.cfg.TTL"}},
		profile: "q-clean", seeds: 20, kinds: "none|order|convergence",
	},
	{
		rule:  "Q2 and with the first claim",
		edits: []edit{{"quorum.go", "if len(q.claims) == 1 {", "if false {"}},
		tests: "TestScripts/q01", kinds: "script",
	},
	{
		rule:  "Q2 who has no claim sends no beats",
		edits: []edit{{"beat.go", " && p.voter && len(q.claims) > 0 }", " && p.voter }"}},
		tests: "TestScripts/q01", kinds: "script",
	},
	{
		rule:    "Q3 votes are dropped when the TTL has passed without a beat",
		edits:   []edit{{"quorum.go", "q.now >= q.expireAt", "false"}},
		profile: "q-clean", seeds: 200, kinds: "none",
	},
	{
		rule:    "Q3 and not before",
		edits:   []edit{{"beat.go", "p.tie.until = q.now + q.m.cfg.TTL\n", "p.tie.until = q.now + q.m.cfg.TTL*9/10\n"}},
		profile: "q-freeze", seeds: 200, kinds: "two-leases",
	},
	{
		rule: "Q3 a vote that was dropped is given anew",
		edits: []edit{{"beat.go", `			r.vote = Vote{Epoch: r.vote.Epoch + 1}
			r.changed = true
`, ""}},
		tests: "TestVoterLooksAtTheTimeFirst", kinds: "given anew",
	},
	{
		rule:  "Q3 dropping votes raises the bind",
		edits: []edit{{"beat.go", "p.tie.bind = uint64(q.m.clock.next(now))\n\tfor", "for"}},
		tests: "TestScripts/q10", kinds: "script",
	},
	{
		rule:  "Q3 an answer tells the bind",
		edits: []edit{{"beat.go", "p.tie.bound = max(p.tie.bound, msg.Bind)", "if len(msg.Updates) > 0 {\n\t\tp.tie.bound = max(p.tie.bound, msg.Bind)\n\t}"}},
		tests: "TestScripts/q10", kinds: "script",
	},
	{
		rule:  "Q3 a vote below the highest bind does not count",
		edits: []edit{{"quorum.go", "return l.votesFor(c) && l.bind == p.tie.bound", "return l.votesFor(c)"}},
		tests: "TestScripts/q10", kinds: "script",
	},
	{
		rule:  "Q3 a forgotten peer gets a bind above all that it had",
		edits: []edit{{"beat.go", "if p.tie.bind == 0 {", "if false {"}},
		tests: "TestBindOfAForgottenPeer", kinds: "bind",
	},
	{
		// For votes it is the stamp in a beat that matters. This order makes what
		// happens depend on nothing else.
		rule: "Q3 a voter looks at the time before it counts a beat",
		edits: []edit{{"machine.go", "m.mode.look(now)\n\tif p := m.known(msg.From)", `q := m.mode.(*quorum)
	q.now = now.Up
	if p := m.known(msg.From)`}},
		tests: "TestVoterLooksAtTheTimeFirst", kinds: "bind",
	},
	{
		rule:  "Q3 a voter settles before it acknowledges",
		edits: []edit{{"machine.go", "m.update(now, p, u, msg.Bind)\n\t\t}\n\t}\n\tm.finish(now)", "m.update(now, p, u, msg.Bind)\n\t\t}\n\t}"}},
		tests: "TestVoterLooksAtTheTimeFirst", kinds: "vote",
	},
	{
		rule:    "Q4 two per cent are left for the clocks",
		edits:   []edit{{"quorum.go", "ttl - ttl/50", "ttl"}},
		profile: "q-freeze", seeds: 300, kinds: "two-leases",
	},
	{
		rule:    "Q4 the lease ends with the Quorum-th vote",
		edits:   []edit{{"quorum.go", "sent[q.m.cfg.Quorum-1] +", "sent[max(0, q.m.cfg.Quorum-2)] +"}},
		profile: "q-restart", seeds: 50, kinds: "two-leases",
	},
	{
		rule: "Q4 as many votes as the quorum",
		edits: []edit{
			{"quorum.go", "if len(sent) < q.m.cfg.Quorum {", "if len(sent) < q.m.cfg.Quorum-1 {"},
			{"quorum.go", "sent[q.m.cfg.Quorum-1] +", "sent[max(0, q.m.cfg.Quorum-2)] +"},
			{"quorum.go", "votes < q.m.cfg.Quorum &&", "votes < q.m.cfg.Quorum-1 &&"},
			{"quorum.go", "q.acks(r, o) < q.m.cfg.Quorum", "q.acks(r, o) < q.m.cfg.Quorum-1"},
		},
		profile: "q-calm", seeds: 50, kinds: "two-leases|token",
	},
	{
		rule:  "Q4 a claim wins when more than a quarter of the TTL is left",
		edits: []edit{{"quorum.go", "end <= q.now+q.m.cfg.TTL/4 ||", ""}},
		tests: "TestScripts/q10", kinds: "script",
	},
	{
		rule:    "Q4 the lease is handed out when Quorum voters know the token",
		edits:   []edit{{"quorum.go", "q.acks(r, o) < q.m.cfg.Quorum || ", ""}},
		profile: "q-skew", seeds: 400, kinds: "token",
	},
	{
		rule:    "Q4 and when there is time to stop",
		edits:   []edit{{"quorum.go", " || o.until-q.now <= o.stopWithin+q.m.cfg.TTL/8", ""}},
		profile: "q-late", seeds: 150, kinds: "short",
	},
	{
		rule:    "Q4 a lease that has run out is gone",
		edits:   []edit{{"quorum.go", "if q.now >= o.until {", "if false {"}},
		profile: "q-freeze", seeds: 20, kinds: "revived",
	},
	{
		rule:  "Q4 and is not renewed by whoever wakes",
		edits: []edit{{"quorum.go", "q.renewAll() // by what was known", "q.now, q.counted = now.Up, false\n\t\tq.renewAll() // by what was known"}},
		tests: "TestScripts/q09", kinds: "script",
	},
	{
		rule:    "Q4 the end of a lease never goes back",
		edits:   []edit{{"quorum.go", "o.until = max(o.until, end)", "o.until = end"}},
		profile: "q-fp", seeds: 50, kinds: "shortened",
	},
	{
		rule:  "Q4 what votes are worth is taken down before a voter counts no more",
		edits: []edit{{"beat.go", "func (q *quorum) died(*peer) {\n\tq.renewAll()", "func (q *quorum) died(*peer) {"}},
		tests: "TestLeaseOutlivesTheDeathOfAVoter", kinds: "lasts",
	},
	{
		rule:    "Q5 who has started votes for nobody",
		edits:   []edit{{"quorum.go", "voteAt: now.Up + startup(m.cfg.TTL)", "voteAt: now.Up"}},
		profile: "q-restart", seeds: 20, kinds: "two-leases",
	},
	{
		rule:    "Q5 for as long as an earlier vote may be bound",
		edits:   []edit{{"quorum.go", "return ttl + ttl/25", "return ttl / 2"}},
		profile: "q-restart", seeds: 20, kinds: "two-leases",
	},
	{
		rule:  "Q6 proof of death frees the votes",
		edits: []edit{{"machine.go", "m.link(r, p).state = nil\n\t\t}\n\t\tm.touchAll()", "_ = r\n\t\t}\n\t\tm.touchAll()"}},
		tests: "TestScripts/q02", kinds: "script",
	},
	{
		rule:  "Q6 the dead are not heard",
		edits: []edit{{"machine.go", "p != nil && !p.dead {\n\t\tm.clock", "p != nil {\n\t\tm.clock"}},
		tests: "TestScripts/q12", kinds: "script",
	},
	{
		rule:  "Q6 the dead do not come back",
		edits: []edit{{"machine.go", "if p.dead {\n\t\tm.finish(now)\n\t\treturn\n\t}", ""}},
		tests: "TestScripts/q02", kinds: "script",
	},
	{
		rule:  "Q7 votes of two that share a name do not count",
		edits: []edit{{"quorum.go", "case own || q.twin(p, p.name):", "case own:"}},
		tests: "TestScripts/q07", kinds: "script",
	},
	{
		rule:  "Q7 nor while a vote of the one that has left may be bound",
		edits: []edit{{"quorum.go", "return p.inView || p.tie.heard != 0 && q.now < p.tie.heard+startup(q.m.cfg.TTL)", "return p.inView"}},
		tests: "TestScripts/q07", kinds: "script",
	},
	{
		rule:  "Q7 nor does one's own vote",
		edits: []edit{{"quorum.go", "q.self = !q.twin(nil, q.m.cfg.Name)", ""}},
		tests: "TestScripts/q13", kinds: "script",
	},
	{
		rule:  "Q7 nobody wins when there are too many voters",
		edits: []edit{{"quorum.go", "|| len(q.names) > q.m.cfg.Voters", ""}},
		tests: "TestScripts/q08", kinds: "script",
	},
	{
		rule:  "Q7 a voter that has left may be back",
		edits: []edit{{"quorum.go", "(p.goodbye || p.dead) && !q.present(p)", "!q.present(p)"}},
		tests: "TestVotersThatMayBeBack", kinds: "voters",
	},
	{
		rule:  "Q7 but not one that said goodbye",
		edits: []edit{{"quorum.go", "(p.goodbye || p.dead) && !q.present(p)", "p.dead && !q.present(p)"}},
		tests: "TestScripts/q08", kinds: "script",
	},
	{
		rule:  "a peer whose claims have votes is not forgotten",
		edits: []edit{{"beat.go", "p.tie.heard+2*startup(q.m.cfg.TTL)", "p.tie.heard"}},
		tests: "TestBoundPeerIsNotForgotten", kinds: "vote",
	},
	{
		rule:  "a peer that may be bound to claims here is not forgotten",
		edits: []edit{{"beat.go", "p.tie.heard+2*startup(q.m.cfg.TTL)", "p.tie.heard+startup(q.m.cfg.TTL)"}},
		tests: "TestVoterIsNotForgottenBeforeItsVoteIsFree", kinds: "has moved",
	},

	// What keeps hostile or broken peers from doing lasting harm.
	{
		rule:  "messages out of range are dropped",
		edits: []edit{{"machine.go", "msg.From == 0 || !msg.sane(now.Wall)", "msg.From == 0"}},
		tests: "TestMessagesOutOfRange", kinds: "was taken",
	},
	{
		rule:  "the bound for what others send moves on",
		edits: []edit{{"hlc.go", "return min(maxHLC, HLC(max(now.Add(maxAhead).UnixMicro(), 0))<<hlcBits)", "return maxHLC"}},
		tests: "TestClockAtTheBound", kinds: "has not won",
	},
	{
		rule:  "messages for an earlier start are dropped",
		edits: []edit{{"machine.go", "msg.To != m.cfg.Self || ", ""}},
		tests: "TestMessagesOutOfRange/other", kinds: "was taken",
	},
	{
		rule:  "what was not said is not acknowledged",
		edits: []edit{{"machine.go", "u.Seen > l.acked && u.Seen <= r.ver", "u.Seen > l.acked"}},
		tests: "TestAcknowledgementInAdvance", kinds: "not sent again",
	},
	{
		// The vote would be free again each time it is given.
		rule:  "what was not voted is not given back",
		edits: []edit{{"machine.go", "max(l.ret, min(u.Gave, r.vote.Epoch))", "max(l.ret, u.Gave)"}},
		tests: "TestVoteGivenBackInAdvance", kinds: endless,
	},
	{
		rule:  "what was not asked is not answered",
		edits: []edit{{"available.go", "msg.Pong > p.answered && msg.Pong <= p.pinged", "msg.Pong > p.answered"}},
		tests: "TestPongInAdvance", kinds: "is silent",
	},
	{
		rule:  "strays are bounded",
		edits: []edit{{"machine.go", "p == nil && m.strays() < maxStrays", "p == nil"}},
		tests: "TestStrayNodes", kinds: "nodes are kept",
	},
}

// endless is how a test fails that goes on for ever.
const endless = "timed out"

// TestEveryRuleIsNeeded takes out one rule at a time and expects the simulation,
// a script or a test to fail, which passes with all rules in place.
func TestEveryRuleIsNeeded(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("builds the tests once for each rule; go test without -short and -race does it")
	}
	t.Run("with all rules", func(t *testing.T) {
		t.Parallel()
		for profile, seeds := range seedsOf(mutations) {
			out, err := exec.Command(os.Args[0], simArgs(profile, seeds)...).CombinedOutput()
			if err != nil {
				t.Errorf("profile %s, %d seeds: %v\n%s", profile, seeds, err, out)
			}
		}
	})
	builds := make(chan struct{}, 2) // a build and a run keep a processor busy each
	for _, mu := range mutations {
		t.Run(mu.rule, func(t *testing.T) {
			t.Parallel()
			builds <- struct{}{}
			defer func() { <-builds }()
			mu.check(t)
		})
	}
}

// seedsOf returns how many seeds of each profile the mutations look at.
func seedsOf(ms []mutation) map[string]int {
	most := map[string]int{}
	for _, mu := range ms {
		if mu.profile != "" {
			most[mu.profile] = max(most[mu.profile], mu.seeds)
		}
	}
	return most
}

func simArgs(profile string, seeds int) []string {
	return []string{"-test.run=^TestSim(Quorum)?$", patient, "-profile=" + profile, fmt.Sprint("-seeds=", seeds)}
}

// patient is for what ends by itself, if others leave it the time.
const patient = "-test.timeout=8m"

// check builds the tests without the rule and runs them.
func (mu mutation) check(t *testing.T) {
	args := []string{"-test.run=^" + mu.tests, patient}
	switch {
	case mu.profile != "":
		args = simArgs(mu.profile, mu.seeds)
	case mu.kinds == endless:
		args[1] = "-test.timeout=5s"
	}
	out, err := exec.Command(mu.build(t), args...).CombinedOutput()
	if err == nil {
		t.Fatalf("nobody notices: %v passes", args)
	}
	kinds := mu.kinds
	if mu.profile != "" {
		kinds = "violation (" + kinds + "): "
	}
	if !regexp.MustCompile(kinds).Match(out) {
		t.Fatalf("%v fails for another reason than %s:\n%s", args, kinds, out)
	}
	if mu.profile != "" {
		t.Logf("%s", regexp.MustCompile("violation .*").Find(out))
	}
}

// build returns the tests as a program, with the edits laid over the sources.
func (mu mutation) build(t *testing.T) string {
	dir := t.TempDir()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for file, text := range mu.edited(t) {
		edited := filepath.Join(dir, file)
		if err := os.WriteFile(edited, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[filepath.Join(here, file)] = edited
	}
	list, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), list, 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "claims.test")
	build := exec.Command("go", "test", "-c", "-gcflags=-dwarf=false", "-ldflags=-s -w", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, ".")
	build.Env = append(os.Environ(), "GOGC=off") // a hundred short builds take a quarter less
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build, err, out)
	}
	return program
}

// edited returns the files that the mutation changes.
func (mu mutation) edited(t *testing.T) map[string]string {
	files := map[string]string{}
	for _, e := range mu.edits {
		if files[e.file] == "" {
			text, err := os.ReadFile(e.file)
			if err != nil {
				t.Fatal(err)
			}
			files[e.file] = string(text)
		}
		if n := strings.Count(files[e.file], e.old); n != 1 {
			t.Fatalf("%q is %d times in %s, want once", e.old, n, e.file)
		}
		files[e.file] = strings.Replace(files[e.file], e.old, e.new, 1)
	}
	return files
}
