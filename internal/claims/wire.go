package claims

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// The wire format is written by hand: ten thousand States pass through it in
// a take-over, and a decoder for hostile input has to be strict.
const (
	wireVersion = 2

	maxWireID   = 255
	maxWireMeta = 512

	flagWantAck = 1
	flagRecall  = 2

	flagBeat = 1 // of the message
	flagBack = 2
	flagBind = 4

	// The smallest encodings, which bound how many a message can claim to have.
	minUpdateLen = 1 + 1 + 1 + 5*8 + minClaimRef + 1
	minClaimRef  = 8 + 1 + 8
	minClaimLen  = 1 + 3*8 + 1 + 1
	minTallyLen  = minClaimRef + 1
)

// ErrMalformed is matched by the errors of ParseMessage.
var ErrMalformed = errors.New("malformed message")

// AppendMessage appends the wire format of msg to b.
func AppendMessage(b []byte, msg Message) []byte {
	b = append(b, wireVersion)
	b = appendUint64(b, uint64(msg.From), uint64(msg.To), uint64(msg.HLC), uint64(msg.Since))
	b = binary.AppendUvarint(b, msg.Ping)
	b = binary.AppendUvarint(b, msg.Pong)
	b = appendTies(b, msg)
	b = binary.AppendUvarint(b, uint64(len(msg.Updates)))
	for _, u := range msg.Updates {
		b = appendUpdate(b, u)
	}
	return b
}

// appendTies appends what quorum mode has to say: a byte that says what there is,
// and that.
func appendTies(b []byte, msg Message) []byte {
	at := len(b)
	b = append(b, 0)
	if msg.Bind != 0 {
		b[at] |= flagBind
		b = appendUint64(b, msg.Bind)
	}
	if msg.Beat.K != 0 {
		b[at] |= flagBeat
		b = appendUint64(b, uint64(msg.Beat.K), uint64(msg.Beat.Echo))
	}
	if msg.Back.Stamp != 0 {
		b[at] |= flagBack
		b = appendUint64(b, uint64(msg.Back.K), uint64(msg.Back.Stamp))
	}
	return b
}

func appendUpdate(b []byte, u Update) []byte {
	b = appendString(b, u.ID)
	var flags byte
	if u.WantAck {
		flags |= flagWantAck
	}
	if u.Vote.Recall {
		flags |= flagRecall
	}
	b = append(b, flags)
	b = appendUint64(b, uint64(u.Ver), uint64(u.Seen), u.Gave, u.Vote.Epoch, u.Floor)
	b = appendClaim(b, u.Vote.Claim)
	b = binary.AppendUvarint(b, uint64(len(u.Claims)))
	for _, c := range u.Claims {
		b = binary.AppendUvarint(b, c.Seq)
		b = appendUint64(b, uint64(c.Stamp), c.Token, c.Won)
		b = appendString(b, c.Meta)
		b = binary.AppendUvarint(b, uint64(len(c.Tallies)))
		for _, t := range c.Tallies {
			b = appendClaim(b, t.Rival)
			b = binary.AppendUvarint(b, uint64(t.Votes))
		}
	}
	return b
}

func appendClaim(b []byte, c Claim) []byte {
	b = appendUint64(b, uint64(c.Node))
	b = binary.AppendUvarint(b, c.Seq)
	return appendUint64(b, uint64(c.Stamp))
}

func appendUint64(b []byte, vs ...uint64) []byte {
	for _, v := range vs {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// ParseMessage returns the message in b, all of it, or an error that matches
// ErrMalformed. It keeps no part of b.
func ParseMessage(b []byte) (Message, error) {
	d := decoder{b: b}
	if v := d.byte(); d.err == nil && v != wireVersion {
		return Message{}, fmt.Errorf("%w: version %d, this is version %d", ErrMalformed, v, wireVersion)
	}
	msg := Message{From: Node(d.uint64()), To: Node(d.uint64()), HLC: HLC(d.uint64()), Since: HLC(d.uint64()), Ping: d.uvarint(), Pong: d.uvarint()}
	d.ties(&msg)
	n := d.count("updates", minUpdateLen)
	if n > 0 {
		msg.Updates = make([]Update, 0, n)
	}
	for range n {
		msg.Updates = append(msg.Updates, d.update())
		if d.err != nil {
			break
		}
	}
	if d.err == nil && len(d.b) > 0 {
		d.fail("%d bytes too many", len(d.b))
	}
	if d.err != nil {
		return Message{}, d.err
	}
	return msg, nil
}

// decoder reads from b until it fails; after that it returns zeros.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
	}
	d.b = nil
}

// ties reads what appendTies has written; what a flag promises must not be zero.
func (d *decoder) ties(msg *Message) {
	flags := d.byte()
	if flags&flagBind != 0 {
		msg.Bind = d.uint64()
	}
	if flags&flagBeat != 0 {
		msg.Beat = Beat{K: d.duration(), Echo: d.duration()}
	}
	if flags&flagBack != 0 {
		msg.Back = Back{K: d.duration(), Stamp: d.duration()}
	}
	if flags&^(flagBind|flagBeat|flagBack) != 0 || flags&flagBind != 0 && msg.Bind == 0 ||
		flags&flagBeat != 0 && msg.Beat.K == 0 || flags&flagBack != 0 && msg.Back.Stamp == 0 {
		d.fail("flags %#x", flags)
	}
}

func (d *decoder) duration() time.Duration { return time.Duration(d.uint64()) }

func (d *decoder) update() Update {
	s := &State{ID: d.string("id", maxWireID)}
	if s.ID == "" {
		d.fail("empty id")
	}
	flags := d.byte()
	u := Update{State: s, WantAck: flags&flagWantAck != 0}
	s.Vote.Recall = flags&flagRecall != 0
	s.Ver, u.Seen, u.Gave = HLC(d.uint64()), HLC(d.uint64()), d.uint64()
	s.Vote.Epoch, s.Floor = d.uint64(), d.uint64()
	s.Vote.Claim = d.claim()
	if n := d.count("claims", minClaimLen); n > 0 {
		s.Claims = make([]ClaimState, n)
	}
	for i := range s.Claims {
		s.Claims[i] = d.claimState()
		if d.err != nil {
			break
		}
	}
	return u
}

func (d *decoder) claimState() ClaimState {
	c := ClaimState{Seq: d.uvarint(), Stamp: HLC(d.uint64()), Token: d.uint64(), Won: d.uint64(), Meta: d.string("meta", maxWireMeta)}
	if n := d.count("tallies", minTallyLen); n > 0 {
		c.Tallies = make([]Tally, n)
	}
	for i := range c.Tallies {
		c.Tallies[i] = Tally{Rival: d.claim(), Votes: d.votes()}
		if d.err != nil {
			break
		}
	}
	return c
}

func (d *decoder) votes() int {
	n := d.uvarint()
	if n > math.MaxUint16 {
		d.fail("%d votes; at most %d are allowed", n, math.MaxUint16)
		return 0
	}
	return int(n)
}

func (d *decoder) claim() Claim {
	return Claim{Node: Node(d.uint64()), Seq: d.uvarint(), Stamp: HLC(d.uint64())}
}

func (d *decoder) byte() byte {
	if len(d.b) < 1 {
		d.fail("truncated")
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) uint64() uint64 {
	if len(d.b) < 8 {
		d.fail("truncated")
		return 0
	}
	v := binary.BigEndian.Uint64(d.b)
	d.b = d.b[8:]
	return v
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail("truncated or over-long number")
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads how many elements follow; each takes at least size bytes.
func (d *decoder) count(what string, size int) int {
	n := d.uvarint()
	if n > uint64(len(d.b)/size) {
		d.fail("%d %s in %d bytes", n, what, len(d.b))
		return 0
	}
	return int(n)
}

func (d *decoder) string(what string, most uint64) string {
	n := d.uvarint()
	if n > most || n > uint64(len(d.b)) {
		d.fail("%s of %d bytes; at most %d are allowed and %d are left", what, n, most, len(d.b))
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}
