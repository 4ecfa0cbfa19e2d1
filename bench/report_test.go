package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
)

func exampleReport() *report {
	return &report{
		Machine: "linux/amd64, 2 cores", Version: "v1.2.3", Load: "0.10 before, 0.20 after",
		Rows: []row{
			{Engine: "etcd", Name: "kill", Measure: "kill -9, TTL 2 s", Limit: 2500 * time.Millisecond,
				Ours: figures{3, 2600 * time.Millisecond, 3 * time.Second},
				Peers: []peerFigures{
					{Peer: election, What: "TTL 5 s", figures: figures{3, 4200 * time.Millisecond, 5 * time.Second}},
					{Peer: election, What: "TTL 2 s", figures: figures{3, 1700 * time.Millisecond, 2 * time.Second}},
				}},
			{Engine: "etcd", Name: "1000", Measure: "1,000 ids started", Limit: time.Second, Ours: figures{3, 123456 * time.Microsecond, 200 * time.Millisecond}},
		},
	}
}

func TestTable(t *testing.T) {
	var out strings.Builder
	if err := exampleReport().print(&out); err != nil {
		t.Fatal(err)
	}
	const header = "highlander v1.2.3 on linux/amd64, 2 cores, load average 0.10 before, 0.20 after\n"
	if !strings.HasPrefix(out.String(), header) {
		t.Errorf("does not begin with %q:\n%s", header, out.String())
	}
	const table = `
engine  measure            rounds  median  slowest  at most          peer                           rounds  median  slowest
etcd    kill -9, TTL 2 s   3       2.60 s  3.00 s   2.50 s (missed)  concurrency.Election, TTL 5 s  3       4.20 s  5.00 s
                                                                     concurrency.Election, TTL 2 s  3       1.70 s  2.00 s
etcd    1,000 ids started  3       123 ms  200 ms   1.00 s           -                                              
`
	if !strings.HasSuffix(out.String(), table) {
		t.Errorf("got\n%s\nwhich does not end with\n%s", out.String(), table)
	}
}

func TestJSONHasTheFiguresInNanoseconds(t *testing.T) {
	text, err := json.Marshal(exampleReport())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`{"machine":"linux/amd64, 2 cores","version":"v1.2.3","load":"0.10 before, 0.20 after","rows":[{"engine":"etcd","name":"kill",`,
		`"measure":"kill -9, TTL 2 s","highlander":{"rounds":3,"median_ns":2600000000,"max_ns":3000000000},"limit_ns":2500000000,"peers":[`,
		`{"peer":"concurrency.Election","what":"TTL 5 s","rounds":3,"median_ns":4200000000,"max_ns":5000000000},`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

func TestMedianAndSlowest(t *testing.T) {
	got := summarize([]time.Duration{5, 1, 4, 2, 3})
	if want := (figures{5, 3, 5}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		2350 * time.Millisecond:   "2.35 s",
		123456 * time.Microsecond: "123 ms",
		50 * time.Millisecond:     "50 ms",
		1234 * time.Microsecond:   "1.23 ms",
	} {
		if got := short(d); got != want {
			t.Errorf("%d ns: %s, want %s", d, got, want)
		}
	}
}

func TestAPipeGetsALineAStep(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := newProgress(w)
	p.step("measuring %s", "this")
	p.update("round 1 of 2")
	p.step("measuring that")
	p.done()
	w.Close()
	got := make([]byte, 100)
	n, err := r.Read(got)
	if want := "measuring this\nmeasuring that\n"; err != nil || string(got[:n]) != want {
		t.Errorf("got %q, %v; want %q", got[:n], err, want)
	}
}
