//go:build linux

package lab

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	seedFlag   = flag.Uint64("seed", 0, "seed of the faults; 0 draws one")
	faultsFlag = flag.Int("faults", 0, "how many faults Soak has; it is skipped without")
	modeFlag   = flag.String("mode", "", "quorum or available: the only mode that Soak runs")
	nodesFlag  = flag.Int("nodes", 3, "how many nodes the lab has")
	kindsFlag  = flag.String("kinds", "", "the only kinds of faults, separated by commas")
	labsFlag   = flag.Int("labs", 0, "how many labs Soak runs at once, each with its share of the faults and a seed of its own; 0: six, or as many as the time needs")
	keepFlag   = flag.String("keep", "", "directory for the ledger, the logs and the events; they are removed without")
)

// modes are the modes of the cluster, as configured in the lab.
var modes = map[string]Config{
	"available": {Shutdown: time.Second},
	"quorum":    {Shutdown: time.Second, TTL: 3 * time.Second},
}

// faultsOfTest is how many faults there are in each mode in an ordinary pass.
func faultsOfTest() int {
	if testing.Short() || raceEnabled {
		return 9
	}
	return 63
}

// labsOfTest is how many labs share these faults: enough to have most of the time
// in common, few enough for each to have every kind.
func labsOfTest() int { return max(1, faultsOfTest()/len(Kinds)) }

func TestLabAvailable(t *testing.T) {
	t.Parallel()
	soak(t, "available", faultsOfTest(), labsOfTest())
}

func TestLabQuorum(t *testing.T) {
	t.Parallel()
	soak(t, "quorum", faultsOfTest(), labsOfTest())
}

func TestSoak(t *testing.T) {
	if *faultsFlag == 0 {
		t.Skip("the long run is for: go test ./internal/lab -v -run Soak -faults 1000 [-seed N] [-mode quorum|available]")
	}
	chosen := []string{"available", "quorum"}
	if *modeFlag != "" {
		chosen = []string{*modeFlag}
	}
	labs := labsFor(t, *faultsFlag*len(chosen))
	for _, mode := range chosen {
		if _, known := modes[mode]; !known {
			t.Fatalf("-mode %q: available and quorum are allowed", mode)
		}
		t.Run(mode, func(t *testing.T) { soak(t, mode, *faultsFlag, labs) })
	}
}

const (
	perFault  = 3200 * time.Millisecond // with the calm after it, about
	windingUp = 45 * time.Second        // for the end of a lab
)

// labsFor returns how many labs have to run at once.
func labsFor(t *testing.T, faults int) int {
	if *labsFlag > 0 {
		return *labsFlag
	}
	deadline, limited := t.Deadline()
	if !limited {
		return 6
	}
	left := time.Until(deadline) - 2*windingUp
	return min(max(6, 1+int(time.Duration(faults)*perFault/max(left, time.Second))), 24)
}

// untilDeadline is a context that ends a while before go test gives up.
func untilDeadline(t *testing.T) (context.Context, context.CancelFunc) {
	deadline, limited := t.Deadline()
	if !limited {
		return t.Context(), func() {}
	}
	return context.WithDeadlineCause(t.Context(), deadline.Add(-windingUp), errors.New("the time of go test is nearly up; -timeout 0 gives more"))
}

// soak deals the faults out to labs that run beside each other.
func soak(t *testing.T, mode string, faults, labs int) {
	records := make([]Record, labs)
	first := seed()
	t.Run("labs", func(t *testing.T) {
		for i := range records {
			share := (faults + i) / labs
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				records[i] = runLab(t, mode, first+uint64(i), share)
			})
		}
	})
	show(t, mode, records...)
}

func seed() uint64 {
	if *seedFlag != 0 {
		return *seedFlag
	}
	return rand.Uint64N(1_000_000)
}

// runLab runs a lab with faults from a seed, and checks what became of it.
func runLab(t *testing.T, mode string, seed uint64, faults int) Record {
	needLab(t)
	cfg := modes[mode]
	cfg.Nodes, cfg.Seed = *nodesFlag, seed
	if mode == "quorum" {
		cfg.Quorum = cfg.Nodes/2 + 1
	}
	l := newLab(t, cfg)
	var log strings.Builder
	fmt.Fprintf(&log, "%s mode; to repeat it: go test ./internal/lab -v -run Soak -timeout 0 -mode %s -faults %d -seed %d -labs 1 -nodes %d -kinds '%s'\n",
		mode, mode, faults, seed, cfg.Nodes, *kindsFlag)
	plan := NewPlan(seed, faults, kinds(t))
	ctx, cancel := untilDeadline(t)
	defer cancel()
	out, err := l.Run(ctx, plan, func(format string, args ...any) { fmt.Fprintf(&log, format+"\n", args...) })
	if err != nil {
		t.Error(err)
	}
	record, err := l.Finish(within(t))
	if err != nil {
		t.Error(err)
	}
	record.Faults, record.Calms = out.Faults, out.Calms
	for _, v := range Check(record) {
		t.Errorf("%v", v)
	}
	if t.Failed() {
		t.Log(log.String() + story(record))
	}
	t.Logf("seed %d: %d faults in %v, %d frames", seed, len(record.Faults), (record.End - record.Begin).Round(time.Second), l.Frames())
	return record
}

// show prints what the faults did.
func show(t *testing.T, mode string, records ...Record) {
	t.Helper()
	var table strings.Builder
	must(t, WriteTable(&table, records...))
	for _, r := range records {
		table.WriteString(summary(r))
	}
	t.Logf("%s mode\n%s", mode, table.String())
}

// story is the ledger without its ticks.
func story(r Record) string {
	var b strings.Builder
	for _, l := range r.Ledger {
		if l.Entry != Tick {
			fmt.Fprintf(&b, "%9.3f s %s %s/%d %d %s\n", (l.At - r.Begin).Seconds(), l.Entry, l.Node, l.PID, l.Token, l.Note)
		}
	}
	return b.String()
}

func kinds(t *testing.T) []Kind {
	if *kindsFlag == "" {
		return Kinds
	}
	var chosen []Kind
	for _, k := range strings.Split(*kindsFlag, ",") {
		if scripts[Kind(k)] == nil {
			t.Fatalf("-kinds: %q is none; allowed are %q", k, Kinds)
		}
		chosen = append(chosen, Kind(k))
	}
	return chosen
}

// place is where the files of a lab go.
func place(t *testing.T) string {
	if *keepFlag == "" {
		return t.TempDir()
	}
	dir := filepath.Join(*keepFlag, strings.ReplaceAll(t.Name(), "/", "-"))
	must(t, os.RemoveAll(dir))
	must(t, os.MkdirAll(dir, 0o755))
	return dir
}

// summary says how long the cluster took to come to rest.
func summary(r Record) string {
	var took []time.Duration
	children, _ := lives(r.Ledger)
	for _, calm := range r.Calms {
		last := calm.From
		for _, l := range children {
			if l.start.At > calm.From && l.start.At <= calm.Until {
				last = max(last, l.start.At)
			}
			if l.dead > calm.From && l.dead <= calm.Until {
				last = max(last, l.dead)
			}
		}
		took = append(took, last-calm.From)
	}
	return fmt.Sprintf("at rest after the last fault of a burst: median %s, longest %s; stalls of this machine: %d, %s in all\n",
		median(took), longest(took), len(r.Stalls), round(lengthOf(r.Stalls)))
}
