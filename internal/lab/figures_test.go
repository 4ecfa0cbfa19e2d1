package lab

import (
	"strings"
	"testing"
)

func TestTableCountsWhatTheFaultsDid(t *testing.T) {
	r := forge(t, available, `
		fault 20-21 kill n1
		fault 40-50 split n1 | n2 n3
		fault 41-42 kill n3
		1 start n1#a 100 7
		20.02 dead n1#a 100 7
		20.05 start n2#b 200 8
		30 dead n2#b 200 8
		32 start n1#c 300 9
		43.5 start n2#b 201 10
		43.5 overlap n2#b 201 10 n1#c/300
		51.25 alone n2#b 201 10
		51.3 dead n1#c 300 9
		98 dead n2#b 201 10`)
	var table strings.Builder
	must(t, WriteTable(&table, r))
	rows := map[string]string{}
	for line := range strings.Lines(table.String()) {
		fields := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range fields {
			fields[i] = strings.TrimSpace(fields[i])
		}
		rows[fields[0]] = strings.Join(fields[1:], " ")
	}
	for kind, want := range map[Kind]string{
		// The gap at 30 s is that of no fault that hit n2: it counts for the last one.
		KillHighlander: "2 0 - 2 2s 2s",
		Split:          "1 1 7.75s 0 - -",
		Loss:           "0 0 - 0 - -",
		"all":          "3 1 7.75s 2 2s 2s",
	} {
		if rows[string(kind)] != want {
			t.Errorf("%s: %q, want %q", kind, rows[string(kind)], want)
		}
	}
}
