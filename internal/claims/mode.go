package claims

import "time"

// mode is what available mode and quorum mode do each in their own way. All
// else, the State of each id and how votes move, they have in common.
type mode interface {
	// look is called before every input, and sees to what has run out.
	look(now Instant)
	// joining is called before p comes into view, and died before it is proved to
	// be gone; receive takes what a message of p says beside its States.
	joining(p *peer)
	died(p *peer)
	receive(now Instant, p *peer, msg *Message)
	tick() // once a second
	// keeps says whether p must not be forgotten, though it has left.
	keeps(p *peer) bool
	// due says whether there is something beside States to tell p, and say puts
	// it into a message.
	due(p *peer) bool
	say(now Instant, p *peer, msg *Message)

	// live says whether the claims of p count (rules 6 and Q1).
	live(p *peer) bool
	// mayVote says whether this node gives its votes to anybody (rule Q5).
	mayVote() bool
	// claimed and dropped say that this node has made a claim, or has it no
	// more.
	claimed(o *ownClaim)
	dropped(o *ownClaim)
	// elected says whether a waiting claim has won (rules 11 and Q4), and hold
	// takes a winner one step further (rules 12 and 14 to 16, and Q4). It returns
	// whether it changed something that can have consequences.
	elected(r *record, o *ownClaim) bool
	hold(now Instant, r *record, o *ownClaim) bool
	// unfinished says whether there is reason to look at r at the next tick.
	unfinished(r *record) bool
	// next, expires, support, excess and shared are those of Machine.
	next() (time.Duration, bool)
	expires(c Claim) time.Duration
	support(c Claim, since time.Duration) Support
	excess() []string
	shared() []string
}
