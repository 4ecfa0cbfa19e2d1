package lab

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// figures are what a kind of fault did.
type figures struct {
	count    int
	overlaps []time.Duration
	gaps     []time.Duration // without a child
}

// WriteTable writes what each kind of fault did. Where several were at work, a
// gap counts for the last one that hit the node which ran the child, and an
// overlap for the last one that can cause one.
func WriteTable(w io.Writer, records ...Record) error {
	byKind := map[Kind]*figures{}
	for _, k := range Kinds {
		byKind[k] = &figures{}
	}
	for _, r := range records {
		r.count(byKind)
	}
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprintf(t, "| fault\t| count\t| overlaps\t| longest overlap\t| gaps\t| longest gap\t| median gap\t|\n")
	fmt.Fprintf(t, "| ---\t| ---\t| ---\t| ---\t| ---\t| ---\t| ---\t|\n")
	var all figures
	for _, k := range Kinds {
		f := byKind[k]
		f.write(t, string(k))
		all.count += f.count
		all.overlaps, all.gaps = append(all.overlaps, f.overlaps...), append(all.gaps, f.gaps...)
	}
	all.write(t, "all")
	return t.Flush()
}

func (r Record) count(byKind map[Kind]*figures) {
	for _, f := range r.Faults {
		byKind[f.Kind].count++
	}
	for _, g := range gaps(r) {
		f := r.lastFault(g.From, func(f Fault) bool { return slices.Contains(f.Nodes, g.node) })
		if f == nil {
			f = r.lastFault(g.From, func(Fault) bool { return true })
		}
		if f != nil {
			byKind[f.Kind].gaps = append(byKind[f.Kind].gaps, g.length())
		}
	}
	children, _ := lives(r.Ledger)
	for _, l := range children {
		if span, ok := l.overlapped(r.End); ok {
			if f := r.lastFault(span.From, func(f Fault) bool { return f.Kind.parts() }); f != nil {
				byKind[f.Kind].overlaps = append(byKind[f.Kind].overlaps, span.length())
			}
		}
	}
}

func (f figures) write(w io.Writer, what string) {
	fmt.Fprintf(w, "| %s\t| %d\t| %d\t| %s\t| %d\t| %s\t| %s\t|\n", what, f.count, len(f.overlaps), longest(f.overlaps), len(f.gaps), longest(f.gaps), median(f.gaps))
}

func longest(ds []time.Duration) string {
	if len(ds) == 0 {
		return "-"
	}
	return round(slices.Max(ds))
}

func median(ds []time.Duration) string {
	if len(ds) == 0 {
		return "-"
	}
	return round(slices.Sorted(slices.Values(ds))[len(ds)/2])
}

func round(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

// lastFault returns the one that began last, up to a moment.
func (r Record) lastFault(at time.Duration, which func(Fault) bool) *Fault {
	var last *Fault
	for i, f := range r.Faults {
		if f.From <= at && which(f) && (last == nil || last.From < f.From) {
			last = &r.Faults[i]
		}
	}
	return last
}

// gap is a time without a child; it ran on node before.
type gap struct {
	Span
	node string
}

func gaps(r Record) []gap {
	children, _ := lives(r.Ledger)
	slices.SortFunc(children, func(a, b *life) int { return cmp.Compare(a.start.At, b.start.At) })
	var found []gap
	var latest Span // of the lives so far
	var node string
	for i, l := range children {
		if i > 0 && latest.Until < l.start.At {
			found = append(found, gap{Span{latest.Until, l.start.At}, node})
		}
		if lived := l.lived(r.End); i == 0 || lived.Until > latest.Until {
			latest, node = lived, l.start.Name()
		}
	}
	return found
}
