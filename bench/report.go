package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

const howMeasured = `From the moment at which the child returns, or the kill is sent, until it runs
elsewhere, by one clock of this machine. Three processes compete for one id, the
others have queued up before; a started id counts from the order to the process
until the last of them runs. Highlander is measured by highlander bench, the
peer right after it, against the same server. Of few rounds, the slowest says
little.`

// report is what was measured.
type report struct {
	Machine string `json:"machine"`
	Version string `json:"version"`
	Load    string `json:"load"` // load average before and after
	Rows    []row  `json:"rows"`
}

// row is a comparison that was made.
type row struct {
	Engine  string        `json:"engine"`
	Name    string        `json:"name"`
	Measure string        `json:"measure"`
	Ours    figures       `json:"highlander"`
	Limit   time.Duration `json:"limit_ns"`
	Peers   []peerFigures `json:"peers"`
}

type peerFigures struct {
	Peer string `json:"peer"`
	What string `json:"what,omitempty"`
	figures
}

type figures struct {
	Rounds int           `json:"rounds"`
	Median time.Duration `json:"median_ns"`
	Max    time.Duration `json:"max_ns"`
}

// summarize takes at least one figure.
func summarize(all []time.Duration) figures {
	sorted := slices.Sorted(slices.Values(all))
	n := len(sorted)
	return figures{Rounds: n, Median: sorted[n/2], Max: sorted[n-1]}
}

func (r *report) print(w io.Writer) error {
	fmt.Fprintf(w, "highlander %s on %s, load average %s\n\n%s\n\n", r.Version, r.Machine, r.Load, howMeasured)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "engine\tmeasure\trounds\tmedian\tslowest\tat most\tpeer\trounds\tmedian\tslowest")
	for _, row := range r.Rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s", row.Engine, row.Measure, row.Ours, limited(row.Limit, row.Ours.Median))
		if len(row.Peers) == 0 {
			fmt.Fprint(t, "\t-\t\t\t\n")
		}
		for i, peer := range row.Peers {
			if i > 0 {
				fmt.Fprint(t, "\t\t\t\t\t")
			}
			fmt.Fprintf(t, "\t%s\t%s\n", peer.name(), peer.figures)
		}
	}
	return t.Flush()
}

func limited(limit, median time.Duration) string {
	if median > limit {
		return short(limit) + " (missed)"
	}
	return short(limit)
}

func (p peerFigures) name() string {
	if p.What == "" {
		return p.Peer
	}
	return p.Peer + ", " + p.What
}

// String returns three cells of the table.
func (f figures) String() string {
	return fmt.Sprintf("%d\t%s\t%s", f.Rounds, short(f.Median), short(f.Max))
}

// short rounds a duration to three digits or so.
func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d >= 100*time.Millisecond || d%time.Millisecond == 0:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}

// load returns the load average of the last minute.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	minute, _, _ := strings.Cut(string(text), " ")
	return minute
}
