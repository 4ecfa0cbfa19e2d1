package gossip

import "highlander/internal/claims"

// Messages to a node take one of two ways: packets are fast, streams are sure.
// What follows is the agent's, but for the channel of a stream.

type way int

const (
	byPacket way = iota
	byStream
)

// stream is what the agent knows of the sender of a node's streams, which sends one
// message after the other.
type stream struct {
	out       chan outgoing // to the sender
	waiting   int           // in out, or being sent
	phase     streamPhase
	unreached bool // the last stream failed
}

type streamPhase int

const (
	streamIdle   streamPhase = iota
	streamBusy               // a claims message waits or is being sent: what is said meanwhile goes with the next
	streamFailed             // the last claims message did not get there: the next tick tries again
)

const maxShort = 8 // short messages that wait for a stream, at most

func newStream() stream {
	return stream{out: make(chan outgoing, maxShort+1)} // and one claims message
}

// send has a claims message sent; the phase is streamIdle.
func (s *stream) send(msg claims.Message) {
	s.phase = streamBusy
	s.waiting++
	s.out <- outgoing{msg: msg}
}

// sendShort has something short sent, unless too much of that kind waits
// already.
func (s *stream) sendShort(b []byte) {
	if s.waiting < maxShort {
		s.waiting++
		s.out <- outgoing{short: b}
	}
}

// sent notes what has become of a message.
func (s *stream) sent(o outgoing, err error) {
	s.waiting--
	s.unreached = err != nil
	switch {
	case o.short != nil:
	case err != nil:
		s.phase = streamFailed // the States in it are sent again, as they are not acknowledged
	default:
		s.phase = streamIdle
	}
}

func (s *stream) tick() {
	if s.phase == streamFailed {
		s.phase = streamIdle
	}
}

// packets is what was sent to a node in packets and not yet looked after.
type packets struct {
	sent []sentState
	next way // byStream: a packet was lost, or a State came on a stream and is to be acknowledged on one
}

type sentState struct {
	id  string
	ver claims.HLC
}

// pings is which way the pings of a node and this one go, in available mode.
type pings struct {
	awaited bool // there was no answer to the last one yet
	came    way  // the last one of the node, which is to be answered
}

// beats is the same for beats, in quorum mode.
type beats struct {
	phase beatPhase
	came  way
}

type beatPhase int

const (
	beatsArrive  beatPhase = iota
	beatAwaited            // no answer yet to the last one
	beatsDoubted           // nor to the one before, or none in a packet since: they go on a stream as well
)
