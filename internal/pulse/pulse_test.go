package pulse

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestPulseThatIsOnTimeIsNotLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Start()
		defer p.Stop()
		began := time.Now()
		time.Sleep(time.Second)
		if late := p.Late(began); late != 0 {
			t.Errorf("late by %v, want 0", late)
		}
	})
}

func TestLateIsTheSumSinceAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		p := &Pulse{last: began}
		at := func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
		time.Sleep(400 * time.Millisecond)
		for _, ms := range []int{10, 60, 70, 370} { // by 40 and by 290
			p.beat(at(ms))
		}
		for since, want := range map[int]time.Duration{0: 350, 60: 310, 70: 310, 200: 190, 370: 20} { // and the one that is due
			if got := p.Late(at(since)); got != want*time.Millisecond {
				t.Errorf("late by %v since %d ms, want %d ms", got, since, want)
			}
		}
		p.beat(at(60_000))
		p.beat(at(60_010))
		p.beat(at(120_011))
		if len(p.late) != 1 {
			t.Errorf("%d beats are remembered, want the last one", len(p.late))
		}
	})
}
