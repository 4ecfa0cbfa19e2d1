package claims

import (
	"errors"
	"reflect"
	"testing"
	"time"
)

func sampleMessage() Message {
	return Message{
		From: 1, To: 2, HLC: 77, Since: 76, Ping: 3, Pong: 300,
		Updates: []Update{
			{State: &State{ID: "a", Ver: 5, Vote: Vote{Epoch: 9, Claim: Claim{1, 2, 3}, Recall: true}, Floor: 12}, Seen: 4, Gave: 8, WantAck: true},
			{State: &State{ID: "ü/ ", Ver: 6, Claims: []ClaimState{
				{Seq: 1000, Stamp: 8, Token: 10, Won: 9, Meta: "here:80", Tallies: []Tally{{Claim{3, 4, 5}, 2}}},
				{Seq: 1001, Stamp: 9},
			}}},
		},
	}
}

// quorumMessages have each what quorum mode says, alone and together.
func quorumMessages() []Message {
	bind, beat, back := uint64(1)<<60, Beat{K: time.Hour, Echo: time.Minute}, Back{K: time.Minute, Stamp: time.Hour}
	return []Message{
		{From: 1, To: 2, Bind: bind},
		{From: 1, To: 2, Beat: Beat{K: 1}},
		{From: 1, To: 2, Back: Back{Stamp: 1}},
		{From: 1, To: 2, Bind: bind, Beat: beat, Back: back, Updates: sampleMessage().Updates},
	}
}

func TestMessageSurvivesTheWire(t *testing.T) {
	for _, msg := range append(quorumMessages(), Message{From: 1, To: 2}, sampleMessage()) {
		got, err := ParseMessage(AppendMessage(nil, msg))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, msg) {
			t.Errorf("got %+v, want %+v", got, msg)
		}
	}
}

func TestEveryTruncationIsMalformed(t *testing.T) {
	b := AppendMessage(nil, quorumMessages()[3])
	for n := range b {
		if _, err := ParseMessage(b[:n]); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d of %d bytes: error %v, want ErrMalformed", n, len(b), err)
		}
	}
	if _, err := ParseMessage(append(b, 0)); !errors.Is(err, ErrMalformed) {
		t.Errorf("one byte too many: error %v, want ErrMalformed", err)
	}
}

func TestTooManyVotesAreMalformed(t *testing.T) {
	msg := sampleMessage()
	msg.Updates[1].Claims[0].Tallies[0].Votes = 1 << 16
	if _, err := ParseMessage(AppendMessage(nil, msg)); !errors.Is(err, ErrMalformed) {
		t.Errorf("error %v, want ErrMalformed", err)
	}
}

// A message says what it has in one way only.
func TestTiesThatSayNothingAreMalformed(t *testing.T) {
	plain := AppendMessage(nil, Message{From: 1, To: 2})
	flags := len(plain) - 2 // before the number of Updates
	for name, tie := range map[string][]byte{
		"unknown":  {8},
		"no bind":  append([]byte{flagBind}, make([]byte, 8)...),
		"no beat":  append([]byte{flagBeat}, make([]byte, 16)...),
		"no stamp": append([]byte{flagBack}, make([]byte, 16)...),
	} {
		b := append(append(append([]byte{}, plain[:flags]...), tie...), 0)
		if _, err := ParseMessage(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: error %v, want ErrMalformed", name, err)
		}
	}
}

// FuzzParseMessage feeds what parses to a machine, too: neither may panic.
func FuzzParseMessage(f *testing.F) {
	f.Add(AppendMessage(nil, sampleMessage()))
	f.Add(AppendMessage(nil, Message{From: 1, To: 2, Ping: 1}))
	for _, msg := range quorumMessages() {
		f.Add(AppendMessage(nil, msg))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		msg, err := ParseMessage(b)
		if err != nil {
			return
		}
		again, err := ParseMessage(AppendMessage(nil, msg))
		if err != nil || !reflect.DeepEqual(again, msg) {
			t.Fatalf("%+v came back as %+v, %v", msg, again, err)
		}
		for _, quorum := range []int{0, 2} {
			now := Instant{Wall: msg.HLC.Time()}
			m := New(now, Config{Self: 2, Quorum: quorum, Voters: 3, TTL: time.Second})
			m.NodeUp(now, msg.From, "n1", true)
			m.Acquire(now, "a", "", 0)
			m.Receive(now, msg)
			m.Tick(now.add(2 * time.Second))
		}
	})
}
