package claims

import (
	"flag"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	seedFlag    = flag.Int64("seed", 0, "replay this seed of the simulation and print what happens")
	profileFlag = flag.String("profile", "", "simulate with this kind of trouble only")
	seedsFlag   = flag.Int("seeds", 0, "how many seeds to simulate; default 6000 in each mode, and a tenth of that with -short or -race")
	fromFlag    = flag.Int64("from", 1, "the first of them")
)

// TestSim runs the simulation of available mode. A seed that fails prints the
// command that replays it, and the end of what happened.
func TestSim(t *testing.T) { testSim(t, profiles()) }

// TestSimQuorum does so in quorum mode.
func TestSimQuorum(t *testing.T) { testSim(t, quorumProfiles()) }

func testSim(t *testing.T, of []profile) {
	if *profileFlag != "" {
		if of = slices.DeleteFunc(of, func(p profile) bool { return p.name != *profileFlag }); len(of) == 0 {
			t.Skipf("profile %q is none of this mode", *profileFlag)
		}
	}
	if *seedFlag != 0 {
		replay(t, of, *seedFlag)
		return
	}
	seeds := *seedsFlag
	if seeds == 0 {
		seeds = 6000
		if testing.Short() || raceEnabled {
			seeds /= 10
		}
	}
	start := time.Now()
	total := simulate(t, of, *fromFlag, seeds)
	t.Logf("%d seeds, %d messages in %v (fewer seeds with -short or -race)\n%v", seeds, total.messages(), time.Since(start).Round(time.Second), total)
	total.checkConvergence(t)
}

// TestSimRepeats shows that a seed gives the same run each time, so that what
// failed can be replayed.
func TestSimRepeats(t *testing.T) {
	for _, seed := range []int64{9, 21, 31, 50, 51} {
		var runs [2][]string
		for i := range runs {
			w := runSeed(append(profiles(), quorumProfiles()...), seed, newJournal())
			runs[i] = w.log.lines
		}
		if !slices.Equal(runs[0], runs[1]) {
			t.Errorf("seed %d went two ways", seed)
		}
	}
}

// runSeed runs the trouble that a seed stands for.
func runSeed(of []profile, seed int64, log *journal) *world {
	w := newWorld(of[seed%int64(len(of))], uint64(seed), log)
	w.run()
	return w
}

func replay(t *testing.T, of []profile, seed int64) {
	w := runSeed(of, seed, newJournal())
	for _, line := range w.log.lines {
		fmt.Println(line)
	}
	if w.violation != nil {
		t.Errorf("violation %s: %s", w.violation.kind, w.violation.text)
	}
}

// simulate runs seeds on all processors and stops at the first that fails.
func simulate(t *testing.T, of []profile, from int64, seeds int) figures {
	var mu sync.Mutex
	total := figures{}
	next, end := from, from+int64(seeds)
	take := func() (int64, bool) {
		mu.Lock()
		defer mu.Unlock()
		next++
		return next - 1, next <= end && !t.Failed()
	}
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for seed, ok := take(); ok; seed, ok = take() {
				w := runSeed(of, seed, nil)
				mu.Lock()
				total.add(w)
				if w.violation != nil {
					report(t, seed, w)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return total
}

// report prints how to replay a seed that failed and the end of its story.
func report(t *testing.T, seed int64, w *world) {
	const most = 150
	t.Errorf("violation %s: seed %d, profile %s: %s", w.violation.kind, seed, w.profile.name, w.violation.text)
	again := newWorld(w.profile, uint64(seed), newJournal())
	again.run()
	lines := again.log.lines
	if cut := len(lines) - most; cut > 0 {
		lines = append([]string{fmt.Sprintf("... %d lines before", cut)}, lines[cut:]...)
	}
	t.Logf("\n%s\nreplay with: go test ./internal/claims -run Sim -profile %s -seed %d", strings.Join(lines, "\n"), w.profile.name, seed)
}

// figures are what the runs of each profile came to.
type figures map[string]*profileFigures

type profileFigures struct {
	limit                                                           time.Duration // until exactly one holds
	seeds, messages, grants, conflicts, expiries, twoHold, lastLost int
	converged                                                       []time.Duration
}

func (f figures) add(w *world) {
	p := f[w.profile.name]
	if p == nil {
		p = &profileFigures{limit: 5 * sec}
		if w.profile.ttl > 0 {
			p.limit = w.profile.ttl + 2*sec
		}
		f[w.profile.name] = p
	}
	p.seeds++
	p.messages += w.messages
	p.grants += w.grants
	p.conflicts += w.conflicts
	p.expiries += w.expiries
	p.twoHold += w.twoHold
	p.lastLost += w.lastLost
	if w.converged >= 0 {
		p.converged = append(p.converged, w.converged)
	}
}

func (f figures) messages() int {
	sum := 0
	for _, p := range f {
		sum += p.messages
	}
	return sum
}

// percentile returns the duration that per cent of all do not exceed.
func percentile(ds []time.Duration, per int) time.Duration {
	if len(ds) == 0 {
		return -1
	}
	slices.Sort(ds)
	return ds[(len(ds)-1)*per/100]
}

func (f figures) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-9s%8s%10s%9s%11s%10s%10s%10s   until settled: p50 p99 max\n", "", "seeds", "messages", "grants", "conflicts", "expired", "two hold", "all lost")
	for _, p := range append(profiles(), quorumProfiles()...) {
		if s := f[p.name]; s != nil {
			fmt.Fprintf(&b, "%-9s%8d%10d%9d%11d%10d%10d%10d   %v %v %v\n", p.name, s.seeds, s.messages, s.grants, s.conflicts, s.expiries, s.twoHold, s.lastLost,
				percentile(s.converged, 50), percentile(s.converged, 99), percentile(s.converged, 100))
		}
	}
	return b.String()
}

// checkConvergence: once the network is whole, exactly one holder in 99 % of the
// runs (promise 2): within five seconds, or in quorum mode two more than the TTL.
// Each profile has to keep that; the time is virtual.
func (f figures) checkConvergence(t *testing.T) {
	for name, p := range f {
		if never := p.seeds - len(p.converged); never > 0 && !t.Failed() {
			t.Errorf("violation convergence: profile %s: %d of %d seeds never settled", name, never, p.seeds)
		}
		if p99 := percentile(p.converged, 99); p99 > p.limit {
			t.Errorf("violation convergence: profile %s: %v in 99 %% of the runs, want at most %v", name, p99, p.limit)
		}
	}
}
