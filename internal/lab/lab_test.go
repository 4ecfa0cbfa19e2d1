//go:build linux

package lab

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
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

func TestLabAvailable(t *testing.T) { t.Parallel(); runLab(t, "available", faultsOfTest()) }

func TestSoak(t *testing.T) {
	if *faultsFlag == 0 {
		t.Skip("the long run is for: go test ./internal/lab -run Soak -timeout 0 -faults 1000 [-seed N] [-mode quorum|available]")
	}
	for mode := range modes {
		if *modeFlag == "" || *modeFlag == mode {
			t.Run(mode, func(t *testing.T) { t.Parallel(); runLab(t, mode, *faultsFlag) })
		}
	}
}

// runLab runs a lab with faults from a seed, and checks what became of it.
func runLab(t *testing.T, mode string, faults int) {
	needLab(t)
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64N(1_000_000)
	}
	cfg := modes[mode]
	cfg.Nodes, cfg.Seed = *nodesFlag, seed
	if mode == "quorum" {
		cfg.Quorum = cfg.Nodes/2 + 1
	}
	l := newLab(t, cfg)
	var log strings.Builder
	fmt.Fprintf(&log, "%s mode; to repeat it: go test ./internal/lab -run Soak -timeout 0 -mode %s -faults %d -seed %d -nodes %d -kinds '%s'\n",
		mode, mode, faults, seed, cfg.Nodes, *kindsFlag)
	plan := NewPlan(seed, faults, kinds(t))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, err := l.Run(ctx, plan, func(format string, args ...any) { fmt.Fprintf(&log, format+"\n", args...) })
	if err != nil {
		t.Error(err)
	}
	finish, cancel := context.WithTimeout(t.Context(), safetyNet)
	defer cancel()
	record, err := l.Finish(finish)
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
	var table strings.Builder
	must(t, WriteTable(&table, record))
	t.Logf("%s mode\n%s%s", mode, table.String(), summary(record))
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
