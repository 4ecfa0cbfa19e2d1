package lab

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Plan is what is to happen, drawn from a seed.
type Plan struct {
	Seed   uint64
	Bursts []Burst
}

// Burst is a number of faults that may overlap. After it comes a calm.
type Burst []Planned

// Planned is a fault to come. Whom it hits is drawn when it comes, by Seed,
// since that depends on who runs the child.
type Planned struct {
	Number  int
	Kind    Kind
	At, For time.Duration // from the begin of the burst; how long it lasts
	Seed    uint64
}

// NewPlan draws so many faults. Each kind comes about equally often.
func NewPlan(seed uint64, faults int, kinds []Kind) Plan {
	random := rand.New(rand.NewPCG(seed, 1))
	p := Plan{Seed: seed}
	var deck []Kind
	for number := 1; number <= faults; {
		var burst Burst
		for size := burstSize(random); len(burst) < size && number <= faults; number++ {
			if len(deck) == 0 {
				deck = slices.Clone(kinds)
				random.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
			}
			kind := deck[0]
			if kind == SplitUntilWon && len(burst) > 0 {
				break // it is for itself
			}
			deck = deck[1:]
			f := Planned{Number: number, Kind: kind, For: lasts(kind, random), Seed: random.Uint64()}
			if len(burst) > 0 {
				f.At = between(random, 0, 2*time.Second)
			}
			burst = append(burst, f)
			if kind == SplitUntilWon {
				number++
				break
			}
		}
		p.Bursts = append(p.Bursts, burst)
	}
	return p
}

func burstSize(random *rand.Rand) int { return []int{1, 1, 2, 2, 3, 4}[random.IntN(6)] }

// lasts draws how long a fault lasts; of a kill, how long until highlander is
// started again.
func lasts(kind Kind, random *rand.Rand) time.Duration {
	switch kind {
	case KillGuard, KillKeeper:
		return time.Second // until the next fault may come over this node
	case KillHighlander, KillBoth, KillAll, Terminate, TerminateAll:
		return between(random, 0, 3*time.Second)
	case Rolling:
		return between(random, 300*time.Millisecond, time.Second) // at each node
	}
	return between(random, 200*time.Millisecond, 6*time.Second)
}

func between(random *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(random.Int64N(int64(most-least)))
}

func (p Planned) String() string { return fmt.Sprintf("#%d %s", p.Number, p.Kind) }
