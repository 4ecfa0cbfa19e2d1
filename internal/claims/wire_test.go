package claims

import (
	"errors"
	"reflect"
	"testing"
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

func TestMessageSurvivesTheWire(t *testing.T) {
	for _, msg := range []Message{{From: 1, To: 2}, sampleMessage()} {
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
	b := AppendMessage(nil, sampleMessage())
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

// FuzzParseMessage feeds what parses to a machine, too: neither may panic.
func FuzzParseMessage(f *testing.F) {
	f.Add(AppendMessage(nil, sampleMessage()))
	f.Add(AppendMessage(nil, Message{From: 1, To: 2, Ping: 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		msg, err := ParseMessage(b)
		if err != nil {
			return
		}
		again, err := ParseMessage(AppendMessage(nil, msg))
		if err != nil || !reflect.DeepEqual(again, msg) {
			t.Fatalf("%+v came back as %+v, %v", msg, again, err)
		}
		now := Instant{Wall: msg.HLC.Time()}
		m := New(now, Config{Self: 2})
		m.NodeUp(now, msg.From, "", true)
		m.Acquire(now, "a", "", 0)
		m.Receive(now, msg)
		m.Tick(now)
	})
}
