package lab

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// forge makes a record from a script: a line is an entry of the ledger, or a
// fault, a calm, a stall or a process, with its times in seconds:
//
//	0.5 start n1#a 100 7          an entry: time, what, node, process id, token, note
//	fault 2-4 split n1 | n2 n3    from, until, kind, sides or nodes
//	calm 5-8
//	stall 1-2
//	highlander n1 0-9 term=8 killed=8
//	left hl-keeper
func forge(t *testing.T, r Record, script string) Record {
	t.Helper()
	r.Shutdown, r.End = time.Second, 100*time.Second
	for text := range strings.Lines(script) {
		text = strings.TrimSpace(text)
		what, rest, _ := strings.Cut(text, " ")
		switch what {
		case "":
		case "fault":
			r.Faults = append(r.Faults, forgeFault(t, len(r.Faults)+1, rest))
		case "calm":
			r.Calms = append(r.Calms, forgeSpan(t, rest))
		case "stall":
			r.Stalls = append(r.Stalls, forgeSpan(t, rest))
		case "highlander":
			r.Processes = append(r.Processes, forgeProcess(t, rest))
		case "left":
			r.Left = append(r.Left, rest)
		default:
			_, entry, _ := strings.Cut(text, " ")
			line, err := ParseLine(fmt.Sprintf("%d %s", forgeTime(t, what).Nanoseconds(), entry))
			must(t, err)
			r.Ledger = append(r.Ledger, line)
		}
	}
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func forgeTime(t *testing.T, seconds string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(seconds + "s")
	must(t, err)
	return d
}

func forgeSpan(t *testing.T, text string) Span {
	t.Helper()
	from, until, _ := strings.Cut(text, "-")
	return Span{forgeTime(t, from), forgeTime(t, until)}
}

var forgedKinds = map[string]Kind{
	"kill": KillHighlander, "kill-guard": KillGuard, "kill-keeper": KillKeeper, "term": Terminate, "freeze": FreezeOne,
	"split": Split, "loss": Loss,
}

func forgeFault(t *testing.T, number int, text string) Fault {
	t.Helper()
	fields := strings.Fields(text)
	f := Fault{Number: number, Span: forgeSpan(t, fields[0]), Kind: forgedKinds[fields[1]]}
	if f.Kind == "" {
		t.Fatalf("unknown kind %q", fields[1])
	}
	for side := range strings.SplitSeq(strings.Join(fields[2:], " "), "|") {
		nodes := strings.Fields(side)
		f.Nodes = append(f.Nodes, nodes...)
		if f.Kind == Split {
			f.Sides = append(f.Sides, nodes)
		}
	}
	return f
}

func forgeProcess(t *testing.T, text string) Process {
	t.Helper()
	fields := strings.Fields(text)
	span := forgeSpan(t, fields[1])
	p := Process{Node: fields[0], Started: span.From, Exited: span.Until}
	for _, field := range fields[2:] {
		what, at, _ := strings.Cut(field, "=")
		switch what {
		case "term":
			p.Termed = forgeTime(t, at)
		case "killed":
			p.Killed = forgeTime(t, at)
		}
	}
	return p
}

// three are highlanders that were there all the time and ended as they should.
const three = `
	highlander n1 0-99 term=98
	highlander n2 0-99 term=98
	highlander n3 0-99 term=98
`

// handOver is a plain story: n1 stops its child, n2 starts one.
const handOver = three + `
	1 start n1#a 100 7
	1.1 tick n1#a 100 7
	5 term n1#a 100 7
	5.1 stop n1#a 100 7
	5.2 dead n1#a 100 7
	5.3 start n2#b 200 8
	98 term n2#b 200 8
	98.1 stop n2#b 200 8
	98.2 dead n2#b 200 8
	calm 6-20
`

var (
	available = Record{}
	quorum    = Record{Quorum: 2, TTL: 3 * time.Second}
)

func TestCheckAcceptsWhatIsRight(t *testing.T) {
	for _, test := range []struct {
		what   string
		record Record
		script string
	}{
		{"a hand-over, available", available, handOver},
		{"a hand-over, quorum", quorum, handOver},
		{"a netsplit in available mode, after which the larger side is kept", available, three + `
			fault 20-30 split n1 | n2 n3
			1 start n1#a 100 7
			23 start n2#b 200 8
			23 overlap n2#b 200 8 n1#a/100
			31 term n1#a 100 7
			31.1 stop n1#a 100 7
			31.2 dead n1#a 100 7
			31.2 alone n2#b 200 8
			98 term n2#b 200 8
			98.1 stop n2#b 200 8
			98.2 dead n2#b 200 8
			calm 30-40`},
		{"a child that ignores its SIGTERM has its time", quorum, three + `
			1 start n1#a 100 7
			98 term n1#a 100 7
			98.9 dead n1#a 100 7
			calm 6-20`},
		{"the child of a highlander that was killed dies unwarned", quorum, `
			fault 20-21 kill n1
			highlander n1 0-20.01 killed=20
			highlander n1 21-99 term=98
			highlander n2 0-99 term=98
			1 start n1#a 100 7
			20.02 dead n1#a 100 7
			20.03 start n2#b 200 8
			98 term n2#b 200 8
			98.1 stop n2#b 200 8
			98.2 dead n2#b 200 8
			calm 21-40`},
		{"so does that of a guard, which is started again under the same lease", quorum, three + `
			fault 20-21 kill-guard n1
			1 start n1#a 100 7
			20.02 dead n1#a 100 7
			20.05 start n1#a 101 7
			98 term n1#a 101 7
			98.1 stop n1#a 101 7
			98.2 dead n1#a 101 7
			calm 21-40`},
		{"so does that of a highlander that is frozen for long", quorum, three + `
			fault 20-25 freeze n1
			1 start n1#a 100 7
			22.5 dead n1#a 100 7
			23 start n2#b 200 8
			98 term n2#b 200 8
			98.1 stop n2#b 200 8
			98.2 dead n2#b 200 8
			calm 25-40`},
		{"the child on the larger side of a split ends when the other node there has just started and has no vote yet", quorum, `
			fault 20-20.1 kill n3
			fault 22-23 split n1 | n2 n3
			highlander n1 0-99 term=98
			highlander n2 0-99 term=98
			highlander n3 0-20.01 killed=20
			highlander n3 20.1-99 term=98
			1 start n2#b 200 7
			23.3 term n2#b 200 7
			23.4 stop n2#b 200 7
			23.4 dead n2#b 200 7
			24 start n1#a 100 8
			98 term n1#a 100 8
			98.1 stop n1#a 100 8
			98.2 dead n1#a 100 8
			calm 23-40`},
		{"a child on a busy machine writes down its SIGTERM late", available, strings.Replace(handOver, "5 term n1#a 100 7\n\t5.1 stop n1#a 100 7", "4.1 tick n1#a 100 7\n\t4.99 tick n1#a 100 7\n\t5 term n1#a 100 7", 1)},
		{"a child on a busy machine does not get to write it down", available, strings.Replace(handOver, "5 term n1#a 100 7\n\t5.1 stop n1#a 100 7", "4.1 tick n1#a 100 7", 1)},
		{"on a machine that stalled a child starts late", available, strings.Replace(handOver, "5.3 start n2#b", "14 start n2#b", 1) + `
			stall 7-7.3`},
		{"a deaf child is killed at the end of a lease of which a highlander that wakes hears late", quorum, three + `
			fault 20-21.9 freeze n1
			1 start n1#a 100 7
			21.95 term n1#a 100 7
			22.5 dead n1#a 100 7
			23 start n2#b 200 8
			98 term n2#b 200 8
			98.1 stop n2#b 200 8
			98.2 dead n2#b 200 8
			calm 23-40`},
	} {
		for _, v := range Check(forge(t, test.record, test.script)) {
			t.Errorf("%s: rejected: %v", test.what, v)
		}
	}
}

func TestCheckRejectsWhatIsWrong(t *testing.T) {
	for _, test := range []struct {
		what   string
		record Record
		script string
		want   string
	}{
		{"quorum mode, the lock was taken for a microsecond", quorum, handOver + `
			5.299999 start n3#c 300 9
			5.299999 overlap n3#c 300 9 n1#a/100
			5.3 alone n3#c 300 9
			5.3 stop n3#c 300 9
			5.3 dead n3#c 300 9`, RuleOne},
		{"quorum mode, two during a split", quorum, three + `
			fault 20-30 split n1 | n2 n3
			1 start n1#a 100 7
			23 start n2#b 200 8
			23 overlap n2#b 200 8 n1#a/100
			31 term n1#a 100 7
			31.1 stop n1#a 100 7
			31.2 dead n1#a 100 7
			31.2 alone n2#b 200 8
			98 term n2#b 200 8
			98.1 stop n2#b 200 8
			98.2 dead n2#b 200 8`, RuleOne},
		{"quorum mode, a tick after the next one's start, whatever the lock says", quorum, strings.Replace(handOver, "1.1 tick", "5.300001 tick", 1), RuleOne},
		{"available mode, two with a whole network", available, strings.Replace(handOver, "5.3 start n2#b 200 8", "5.05 start n2#b 200 8\n5.05 overlap n2#b 200 8 n1#a/100\n5.2 alone n2#b 200 8", 1), RuleOverlap},
		{"available mode, two for too long after a split", available, three + `
			fault 20-30 split n1 | n2 n3
			1 start n1#a 100 7
			23 start n2#b 200 8
			23 overlap n2#b 200 8 n1#a/100
			37.1 term n1#a 100 7
			37.1 stop n1#a 100 7
			37.2 dead n1#a 100 7
			37.2 alone n2#b 200 8
			98 term n2#b 200 8
			98.1 stop n2#b 200 8
			98.2 dead n2#b 200 8`, RuleOverlap},
		{"available mode, a tick beside another one", available, strings.Replace(handOver, "1.1 tick", "5.31 tick", 1), RuleOverlap},
		{"available mode, the next one is faster than the guard of a highlander that was killed", available, `
			fault 20-21 kill n1
			highlander n1 0-20.01 killed=20
			highlander n1 21-99 term=98
			highlander n2 0-99 term=98
			1 start n1#a 100 7
			20.01 start n2#b 200 8
			20.01 overlap n2#b 200 8 n1#a/100
			20.02 alone n2#b 200 8
			20.03 dead n1#a 100 7
			98 term n2#b 200 8
			98.1 stop n2#b 200 8
			98.2 dead n2#b 200 8`, RuleOverlap},
		{"tokens that shrink, quorum", quorum, strings.ReplaceAll(handOver, "n2#b 200 8", "n2#b 200 6"), RuleTokens},
		{"tokens that stand still, quorum", quorum, strings.ReplaceAll(handOver, "n2#b 200 8", "n2#b 200 7"), RuleTokens},
		{"tokens that shrink with a whole network, available", available, strings.ReplaceAll(handOver, "n2#b 200 8", "n2#b 200 6"), RuleTokens},
		{"no child in a calm", available, handOver + `
			fault 20-21 split n1 | n2 n3
			calm 98.5-99`, RuleSettled},
		{"a child too late after the last fault", available, strings.Replace(handOver, "5.3 start n2#b", "14 start n2#b", 1), RuleSettled},
		{"a child too late even for a machine that stalled", available, strings.Replace(handOver, "5.3 start n2#b", "18 start n2#b", 1) + `
			stall 7-7.3`, RuleSettled},
		{"two children in a calm", available, three + `
			fault 20-30 split n1 | n2 n3
			1 start n1#a 100 7
			23 start n2#b 200 8
			23 overlap n2#b 200 8 n1#a/100
			98 term n2#b 200 8
			98.1 stop n2#b 200 8
			98.2 dead n2#b 200 8
			98 term n1#a 100 7
			98.1 stop n1#a 100 7
			98.2 dead n1#a 100 7
			calm 30-40`, RuleSettled},
		{"the smaller side is kept", available, three + `
			fault 20-30 split n1 | n2 n3
			1 start n1#a 100 7
			23 start n2#b 200 8
			23 overlap n2#b 200 8 n1#a/100
			31 term n2#b 200 8
			31.1 stop n2#b 200 8
			31.2 dead n2#b 200 8
			98 term n1#a 100 7
			98.1 stop n1#a 100 7
			98.2 dead n1#a 100 7
			calm 30-40`, RuleLarger},
		{"no child on the larger side", quorum, three + `
			fault 20-40 split n1 | n2 n3
			1 start n1#a 100 7
			22 term n1#a 100 7
			22.1 stop n1#a 100 7
			22.2 dead n1#a 100 7
			41 start n2#b 200 8
			98 term n2#b 200 8
			98.1 stop n2#b 200 8
			98.2 dead n2#b 200 8
			calm 40-50`, RuleServed},
		{"killed and never told", available, strings.Replace(handOver, "5 term n1#a 100 7\n\t5.1 stop n1#a 100 7", "5.19 tick n1#a 100 7", 1), RuleWarned},
		{"killed too soon after it was told", available, strings.Replace(handOver, "5 term n1#a 100 7\n\t5.1 stop n1#a 100 7", "4.1 tick n1#a 100 7\n\t4.8 tick n1#a 100 7\n\t4.9 tick n1#a 100 7\n\t4.99 tick n1#a 100 7\n\t5 term n1#a 100 7", 1), RuleWarned},
		{"killed at the very beginning of a freeze", quorum, three + `
			fault 20-25 freeze n1
			1 start n1#a 100 7
			20.49 tick n1#a 100 7
			20.5 dead n1#a 100 7
			23 start n2#b 200 8
			98 term n2#b 200 8
			98.1 stop n2#b 200 8
			98.2 dead n2#b 200 8`, RuleWarned},
		{"killed because another node's guard was", quorum, three + `
			fault 20-21 kill-guard n2
			1 start n1#a 100 7
			20.49 tick n1#a 100 7
			20.5 dead n1#a 100 7
			23 start n2#b 200 8
			98 term n2#b 200 8
			98.1 stop n2#b 200 8
			98.2 dead n2#b 200 8`, RuleWarned},
		{"a child outlives its highlander", available, strings.Replace(handOver, "98.2 dead n2#b 200 8", "98.2 dead n2#b 200 8\n30 start n3#c 300 9\n31 term n3#c 300 9\n32 dead n3#c 300 9\nhighlander n3 29.5-29.9 killed=29.8", 1), RuleOrphan},
		{"a child is never seen to end", quorum, strings.Replace(handOver, "98.2 dead n2#b 200 8", "", 1), RuleOrphan},
		{"a grandchild outlives its highlander", quorum, handOver + `
			10 fork n2#b 201 8 200
			101.5 dead n2#b 201 8`, RuleOrphan},
		{"something is left", quorum, handOver + "left hl-keeper, process 12", RuleLeft},
		{"highlander does not end at SIGTERM", quorum, strings.Replace(handOver, "n3 0-99 term=98", "n3 0-99 term=20", 1), RuleExit},
		{"highlander ends by itself", quorum, strings.Replace(handOver, "n3 0-99 term=98", "n3 0-50", 1), RuleExit},
		{"a child without a token", quorum, strings.ReplaceAll(handOver, "n1#a 100 7", "n1#a 100 0"), RuleLedger},
		{"a line of nobody", quorum, handOver + "6 tick n1#a 999 7", RuleLedger},
	} {
		found := Check(forge(t, test.record, test.script))
		if !slices.ContainsFunc(found, func(v Violation) bool { return v.Rule == test.want }) {
			t.Errorf("%s: found %v, want a violation of %q", test.what, found, test.want)
		}
	}
}

func TestLedgerLinesSurviveParsing(t *testing.T) {
	for _, text := range []string{"12 start n1#a 100 7", "12 overlap n1#a 100 7 n2#b/200"} {
		line, err := ParseLine(text)
		must(t, err)
		if line.String() != text {
			t.Errorf("%q became %q", text, line)
		}
	}
	for _, text := range []string{"", "12 start n1#a 100", "x start n1#a 100 7", "12 start n1#a x 7", "12 start n1#a 100 -7"} {
		if line, err := ParseLine(text); err == nil {
			t.Errorf("%q was parsed as %v, want an error", text, line)
		}
	}
}

func TestPlansRepeatAndHaveEveryKind(t *testing.T) {
	a, b := NewPlan(7, 60, Kinds), NewPlan(7, 60, Kinds)
	if fmt.Sprint(a) != fmt.Sprint(b) {
		t.Error("two plans from one seed differ")
	}
	count, numbers := map[Kind]int{}, 0
	for _, burst := range a.Bursts {
		for _, f := range burst {
			numbers++
			count[f.Kind]++
			if f.Number != numbers {
				t.Errorf("fault %d has number %d", numbers, f.Number)
			}
			if f.Kind == SplitUntilWon && len(burst) != 1 {
				t.Errorf("%v is not for itself", f)
			}
		}
	}
	if numbers != 60 {
		t.Errorf("%d faults, want 60", numbers)
	}
	for _, k := range Kinds {
		if count[k] < 3 {
			t.Errorf("%d times %q, want 3 at least", count[k], k)
		}
	}
}
