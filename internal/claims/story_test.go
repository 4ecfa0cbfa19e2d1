package claims

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// A journal tells what happens in a run or a script in words. Values of the
// clock get short names in the order in which they appear: v1, v2, ... for the
// versions of a node's State of an id, t1, t2, ... for tokens.
type journal struct {
	lines  []string
	names  map[string]string
	counts map[string]int
	told   map[string]recordStory
}

// recordStory is what was last told of a node's record.
type recordStory struct {
	vote   Vote
	claims []claimStory
	gave   map[Node]uint64
}

type claimStory struct {
	claim  Claim
	token  uint64
	rivals []rival
}

func newJournal() *journal {
	return &journal{names: map[string]string{}, counts: map[string]int{}, told: map[string]recordStory{}}
}

func (j *journal) add(at time.Duration, format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if at >= 0 {
		line = fmt.Sprintf("%9.3f  %s", at.Seconds(), line)
	}
	j.lines = append(j.lines, line)
}

// name returns the short name of a value of some kind.
func (j *journal) name(prefix, scope string, value uint64) string {
	if value == 0 {
		return prefix + "0"
	}
	key := fmt.Sprint(prefix, scope, "/", value)
	if j.names[key] == "" {
		j.counts[prefix+scope]++
		j.names[key] = fmt.Sprint(prefix, j.counts[prefix+scope])
	}
	return j.names[key]
}

func (j *journal) token(id string, t uint64) string { return j.name("t", id, t) }

func (j *journal) version(n Node, id string, v HLC) string {
	return j.name("v", fmt.Sprint(n, id), uint64(v))
}

func (j *journal) epoch(n Node, id string, e uint64) string {
	return j.name("e", fmt.Sprint(n, id), e)
}

// tell returns what the last input made m do.
func (j *journal) tell(m *Machine) []string {
	var story []string
	for _, id := range slices.Sorted(maps.Keys(m.ids)) {
		r := m.ids[id]
		key := fmt.Sprint(m.cfg.Self, "/", id)
		was := j.told[key]
		now := recordStory{vote: r.vote, gave: map[Node]uint64{}}
		story = append(story, j.tellGiven(m, r, was, now)...)
		story = append(story, j.tellVote(m.cfg.Self, r, was.vote)...)
		for _, o := range r.own {
			now.claims = append(now.claims, claimStory{o.Claim, o.token, slices.Clone(o.rivals)})
			story = append(story, j.tellClaim(id, o, was.claim(o.Claim))...)
		}
		j.told[key] = now
	}
	return story
}

func (s recordStory) claim(c Claim) claimStory {
	for _, k := range s.claims {
		if k.claim == c {
			return k
		}
	}
	return claimStory{}
}

func (j *journal) tellGiven(m *Machine, r *record, was, now recordStory) []string {
	var story []string
	for i, l := range r.links {
		if p := m.peers[i]; p != nil {
			now.gave[p.node] = l.gave
			if l.gave > was.gave[p.node] {
				story = append(story, fmt.Sprintf("n%d gives back vote %s of n%d", m.cfg.Self, j.epoch(p.node, r.id, l.gave), p.node))
			}
		}
	}
	return story
}

func (j *journal) tellVote(n Node, r *record, was Vote) []string {
	v := r.vote
	if v == was || was == (Vote{}) && v.Claim == (Claim{}) {
		return nil
	}
	epoch := j.epoch(n, r.id, v.Epoch)
	switch {
	case v.Claim == (Claim{}):
		return []string{fmt.Sprintf("n%d has a free vote (%s)", n, epoch)}
	case v.Epoch != was.Epoch:
		return []string{fmt.Sprintf("n%d votes for %v (%s)", n, v.Claim, epoch)}
	case v.Recall:
		return []string{fmt.Sprintf("n%d wants its vote %s for %v back", n, epoch, v.Claim)}
	}
	return []string{fmt.Sprintf("n%d leaves its vote %s to %v", n, epoch, v.Claim)}
}

func (j *journal) tellClaim(id string, o *ownClaim, was claimStory) []string {
	var story []string
	switch {
	case o.token == was.token:
	case was.token == 0:
		story = append(story, fmt.Sprintf("%v wins with token %s", o.Claim, j.token(id, o.token)))
	default:
		story = append(story, fmt.Sprintf("%v takes the higher token %s", o.Claim, j.token(id, o.token)))
	}
	for i, v := range o.rivals {
		switch {
		case i >= len(was.rivals):
			story = append(story, fmt.Sprintf("%v meets the holder %v", o.Claim, v.claim))
			fallthrough
		case i < len(was.rivals) && v.counted && !was.rivals[i].counted, i >= len(was.rivals) && v.counted:
			if v.counted {
				story = append(story, fmt.Sprintf("%v counts %d votes against %v", o.Claim, v.votes, v.claim))
			}
		}
	}
	if len(o.rivals) == 0 && len(was.rivals) > 0 {
		story = append(story, fmt.Sprintf("%v is the only holder", o.Claim))
	}
	return story
}

// message describes what n says.
func (j *journal) message(msg Message) string {
	var parts []string
	if msg.Ping != 0 {
		parts = append(parts, "ping")
	}
	if msg.Pong != 0 {
		parts = append(parts, "pong")
	}
	if msg.Beat.K != 0 {
		parts = append(parts, "beat")
	}
	switch {
	case msg.Back.K != 0:
		parts = append(parts, "beat counted")
	case msg.Back.Stamp != 0:
		parts = append(parts, "beat not counted")
	}
	for _, u := range msg.Updates {
		parts = append(parts, j.update(msg.From, msg.To, u))
	}
	return strings.Join(parts, "; ")
}

func (j *journal) update(from, to Node, u Update) string {
	s := fmt.Sprintf("%s %s: ", u.ID, j.version(from, u.ID, u.Ver))
	var cs []string
	for _, c := range u.Claims {
		k := Claim{from, c.Seq, c.Stamp}.String()
		if c.Token != 0 {
			k += " holds " + j.token(u.ID, c.Token)
		}
		for _, t := range c.Tallies {
			k += fmt.Sprintf(" %d votes against %v", t.Votes, t.Rival)
		}
		cs = append(cs, k)
	}
	if len(cs) == 0 {
		cs = []string{"no claim"}
	}
	s += strings.Join(cs, ", ")
	if u.Vote.Claim != (Claim{}) {
		s += fmt.Sprintf(", vote %s for %v", j.epoch(from, u.ID, u.Vote.Epoch), u.Vote.Claim)
		if u.Vote.Recall {
			s += " recalled"
		}
	}
	if u.Seen != 0 {
		s += ", saw " + j.version(to, u.ID, u.Seen)
	}
	if u.Gave != 0 {
		s += ", gave back " + j.epoch(to, u.ID, u.Gave)
	}
	if u.WantAck {
		s += ", answer"
	}
	return s
}

// The simulation's part.

func (n *simNode) tellStory() {
	if w := n.w; w.log != nil {
		for _, line := range w.log.tell(n.m) {
			w.logf("%s", line)
		}
	}
}

func (w *world) logMessage(msg Message, fate string) {
	if w.log == nil || len(msg.Updates) == 0 { // pings are too many
		return
	}
	if fate != "" {
		fate = " (" + fate + ")"
	}
	w.logf("    n%d -> n%d%s  %s", msg.From, msg.To, fate, w.log.message(msg))
}

func (w *world) logReceipt(msg Message) {
	if w.log == nil {
		return
	}
	for _, u := range msg.Updates {
		w.logf("    n%d reads %s %s of n%d", msg.To, u.ID, w.log.version(msg.From, u.ID, u.Ver), msg.From)
	}
}
