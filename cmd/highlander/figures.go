package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

const howMeasured = `Three node processes on this machine; the child is a function in them, which
they wrap with the library. All clocks are one, the monotonic clock of the
machine. A child notes the time as the first thing when it is called and, when
it was told to stop, just before it returns; a kill, a SIGSTOP and the healing of
a network count from before they are sent. Other nodes have queued up before. The
network is healed when both sides run and have given each other up. After a kill
there is a rest, in which the failure detector notices as well. On a server the
nodes have a schema, a prefix or ids of their own. With a quorum,
the nodes are highlander run, and the command, a shell, counts as running when
this process has read the first line of it. Of fewer than 100
rounds the p99 is the slowest or close to it.`

type report struct {
	Machine string   `json:"machine"`
	Version string   `json:"version"`
	Cluster string   `json:"cluster,omitempty"`
	Results []result `json:"results"`
}

// result is one line of the report.
type result struct {
	Name   string        `json:"name"`
	What   string        `json:"what"`
	Rounds int           `json:"rounds,omitempty"`
	Min    time.Duration `json:"min_ns,omitempty"`
	Median time.Duration `json:"median_ns,omitempty"`
	P99    time.Duration `json:"p99_ns,omitempty"`
	Max    time.Duration `json:"max_ns,omitempty"`
	Value  string        `json:"value,omitempty"` // instead of the figures
}

func single(what, value string) result { return result{What: what, Value: value} }

func summarize(figures []time.Duration) result {
	if len(figures) == 0 {
		return result{}
	}
	slices.Sort(figures)
	at := func(share float64) time.Duration { return figures[int(share*float64(len(figures)-1)+0.5)] }
	return result{Rounds: len(figures), Min: figures[0], Median: at(0.5), P99: at(0.99), Max: figures[len(figures)-1]}
}

func (r *report) print(w io.Writer) error {
	fmt.Fprintf(w, "highlander %s on %s\n", r.Version, r.Machine)
	fmt.Fprintf(w, "cluster: %s\n\n%s\n\n", cmp.Or(r.Cluster, "embedded, on loopback"), howMeasured)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "measure\trounds\tmin\tmedian\tp99\tmax")
	for _, res := range r.Results {
		if res.Value != "" {
			fmt.Fprintf(t, "%s\t\t\t%s\t\t\n", res.What, res.Value)
			continue
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\n", res.What, res.Rounds, short(res.Min), short(res.Median), short(res.P99), short(res.Max))
	}
	return t.Flush()
}

// short rounds a duration to three digits or so.
func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d >= 100*time.Millisecond:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}

func thousands(n int) string {
	s := strconv.Itoa(n)
	if len(s) > 3 {
		s = s[:len(s)-3] + "," + s[len(s)-3:]
	}
	return s
}

// machine describes where the figures come from.
func machine() string {
	name := ""
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); name == "" && lines.Scan(); {
			if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
				name = ", " + strings.TrimSpace(value)
			}
		}
	}
	return fmt.Sprintf("%s/%s, %d cores%s, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), name, runtime.Version())
}
