package postgres

import (
	"testing"
	"time"
)

func TestDoubtOfDeath(t *testing.T) {
	base := ends{abandoned: 10, fatal: 10, killed: 10, reset: time.Unix(1, 0)}
	for _, test := range []struct {
		name  string
		later ends
		dead  bool
	}{
		{"both were abandoned", ends{12, 10, 10, base.reset}, true},
		{"one failed as it wrote", ends{11, 11, 10, base.reset}, true},
		{"others were abandoned as well", ends{15, 10, 10, base.reset}, true},
		{"nothing was counted", base, false},
		{"one said goodbye", ends{11, 10, 10, base.reset}, false},
		{"both failed by an error", ends{10, 12, 10, base.reset}, false},
		{"an administrator ended one", ends{12, 10, 11, base.reset}, false},
		{"an administrator ended both", ends{10, 10, 12, base.reset}, false},
		{"the statistics were reset", ends{12, 10, 10, time.Unix(2, 0)}, false},
	} {
		if doubt := base.doubt(test.later); (doubt == nil) != test.dead {
			t.Errorf("%s: dead is %v; want %v (%v)", test.name, doubt == nil, test.dead, doubt)
		}
	}
}

func TestWhoIsBeforeInTheRing(t *testing.T) {
	for _, test := range []struct {
		sessions []int64
		one      int64
		want     int64
	}{
		{nil, 5, 0},
		{[]int64{3}, 5, 3},
		{[]int64{8}, 5, 8},
		{[]int64{8, 3, 4}, 5, 4},
		{[]int64{8, 9, 6}, 5, 9},
	} {
		if got := before(test.sessions, test.one); got != test.want {
			t.Errorf("before %d in %v is %d; want %d", test.one, test.sessions, got, test.want)
		}
	}
}
