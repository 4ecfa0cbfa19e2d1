package gossip

import (
	"encoding/binary"
	"fmt"

	"highlander/internal/claims"
)

// word is a short message from one node to another, about membership. It is
// sent twice, as a packet, which is fast, and on a stream, which is sure.
type word struct {
	kind     byte
	from, to claims.Node
	number   uint64      // grows with each word of the sender; in an answer, that of the question
	about    claims.Node // wordDeparted: who
}

const (
	wordGoodbye  = 'g' // I am leaving
	wordDeparted = 'd' // the process of that node is gone
	wordQuestion = 'q' // are you there?
	wordAnswer   = 'a' // I am

	wordLen = 1 + 4*8
)

func (w word) append(b []byte) []byte {
	b = append(b, w.kind)
	for _, v := range [...]uint64{uint64(w.from), uint64(w.to), w.number, uint64(w.about)} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

func parseWord(b []byte) (word, error) {
	switch b[0] {
	case wordGoodbye, wordDeparted, wordQuestion, wordAnswer:
	default:
		return word{}, fmt.Errorf("message of unknown kind %d", b[0])
	}
	if len(b) != wordLen {
		return word{}, fmt.Errorf("message of kind %q has %d bytes, not %d", b[0], len(b), wordLen)
	}
	field := func(i int) uint64 { return binary.BigEndian.Uint64(b[1+8*i:]) }
	return word{kind: b[0], from: claims.Node(field(0)), to: claims.Node(field(1)), number: field(2), about: claims.Node(field(3))}, nil
}

// tell sends a word to n. A question gets its number from here; so does all
// else but an answer.
func (a *agent) tell(n *node, w word) (number uint64) {
	if w.kind != wordAnswer {
		a.words++
		w.number = a.words
	}
	w.from, w.to = a.self, n.id
	b := w.append(nil)
	a.c.list.SendBestEffort(&n.list, b)
	n.stream.sendShort(b) // else questions are repeated, departures noticed by others as well
	return w.number
}

// hear takes a word.
func (a *agent) hear(now claims.Instant, w word) {
	n := a.nodes[w.from]
	if n == nil || w.to != a.self { // a node that is not known yet, or means an earlier process here
		return
	}
	switch w.kind {
	case wordGoodbye:
		a.saidGoodbye(now, n)
	case wordDeparted:
		if !a.inQuorumMode() && a.window(w.from).first(w.number) {
			a.depart(now, a.nodes[w.about])
		}
	case wordQuestion:
		a.tell(n, word{kind: wordAnswer, number: w.number})
	case wordAnswer:
		a.answered(now, n, w.number)
	}
}

// replayWindow tells the first arrival of a number from the others: words come
// twice, in any order, and again when somebody replays packets. Departures are
// the ones that must count once: a late copy would contradict the answer of a
// node that is alive.
type replayWindow struct {
	newest uint64
	seen   uint64 // bit i: newest-i has come
}

func (w *replayWindow) first(number uint64) bool {
	if number > w.newest {
		w.seen = w.seen<<(number-w.newest) | 1 // a shift by 64 or more gives 0
		w.newest = number
		return true
	}
	age := w.newest - number
	if age >= 64 || w.seen&(1<<age) != 0 {
		return false
	}
	w.seen |= 1 << age
	return true
}

const maxWindows = 4096

// window returns the window of a sender. It outlives the sender's membership,
// as a node may come back.
func (a *agent) window(from claims.Node) *replayWindow {
	w := a.heard[from]
	if w == nil {
		if len(a.heard) >= maxWindows {
			for id := range a.heard {
				if a.nodes[id] == nil {
					delete(a.heard, id)
				}
			}
		}
		w = new(replayWindow)
		a.heard[from] = w
	}
	return w
}
