// Command tests reads what go test -json prints. With a file it shows of it what
// go test would have shown, and notes in the file which tests passed and which
// were skipped:
//
//	go test -json work | go run .ci/tests.go FILE
//
// With -skipped it lists those that passed in no run, and fails if one of them is
// not on a list of tests that may be skipped: PACKAGE PATTERN, as in path.Match,
// and a reason.
//
//	go run .ci/tests.go -skipped LIST FILE
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
)

func main() {
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 1:
		err = show(os.Stdin, os.Stdout, args[0])
	case len(args) == 3 && args[0] == "-skipped":
		err = listSkipped(os.Stdout, args[1], args[2])
	default:
		err = fmt.Errorf("usage: tests FILE, or tests -skipped LIST FILE")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tests:", err)
		os.Exit(1)
	}
}

// event is a line of go test -json.
type event struct {
	Action, Package, ImportPath, Test, Output string
}

// results are tests, by package and name, and what became of them.
type results struct{ passed, skipped map[string]bool }

func newResults() results { return results{map[string]bool{}, map[string]bool{}} }

// resultLine is what a test says of itself at its end, and also what one in
// another process has said, whose output was logged.
var resultLine = regexp.MustCompile(`^\s*--- (PASS|SKIP): (\S+) \(`)

func (r results) note(e event) {
	m := resultLine.FindStringSubmatch(e.Output)
	switch {
	case m == nil:
	case m[1] == "PASS":
		r.passed[e.Package+" "+m[2]] = true
	default:
		r.skipped[e.Package+" "+m[2]] = true
	}
}

// show prints the closing line of each package, and all that the tests said
// which did not pass.
func show(in io.Reader, out io.Writer, file string) error {
	all := newResults()
	said := map[string]map[string][]string{} // by package and test, until its end
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if err == io.EOF && line == "" {
			return all.save(file)
		}
		if err != nil && err != io.EOF {
			return err
		}
		var e event
		if json.Unmarshal([]byte(line), &e) != nil {
			fmt.Fprint(out, line) // go's own words
			continue
		}
		tests := said[e.Package]
		if tests == nil {
			tests = map[string][]string{}
			said[e.Package] = tests
		}
		switch e.Action {
		case "output":
			all.note(e)
			if e.Test != "" || e.Output != "PASS\n" {
				tests[e.Test] = append(tests[e.Test], e.Output)
			}
		case "build-output":
			fmt.Fprint(out, e.Output)
		case "pass", "skip", "fail":
			if e.Test != "" && e.Action != "fail" {
				delete(tests, e.Test)
			}
			if e.Test == "" {
				fmt.Fprint(out, ofPackage(tests, e.Action == "fail"))
				delete(said, e.Package)
			}
		}
	}
}

// ofPackage is what to show of a package: if it failed, all that its tests said
// which did not pass, and then its closing line.
func ofPackage(tests map[string][]string, failed bool) string {
	var text strings.Builder
	for _, test := range slices.Sorted(maps.Keys(tests)) {
		if test != "" && failed {
			text.WriteString(strings.Join(tests[test], ""))
		}
	}
	text.WriteString(strings.Join(tests[""], ""))
	return text.String()
}

// save appends the results to a file.
func (r results) save(file string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	for result, tests := range map[string]map[string]bool{"PASS": r.passed, "SKIP": r.skipped} {
		for test := range tests {
			fmt.Fprintln(f, result, test)
		}
	}
	return f.Close()
}

// load reads what several runs have saved.
func load(file string) (results, error) {
	r := newResults()
	text, err := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		if test, passed := strings.CutPrefix(strings.TrimSpace(line), "PASS "); passed {
			r.passed[test] = true
		} else if test, skipped := strings.CutPrefix(strings.TrimSpace(line), "SKIP "); skipped {
			r.skipped[test] = true
		}
	}
	if err == nil && len(r.passed) == 0 {
		err = fmt.Errorf("%s: no test passed", file)
	}
	return r, err
}

// listSkipped fails if a test was skipped that may not be.
func listSkipped(out io.Writer, list, file string) error {
	r, err := load(file)
	if err != nil {
		return err
	}
	mayBe, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	var names, unlisted []string
	for _, test := range slices.Sorted(maps.Keys(r.skipped)) {
		if r.passed[test] {
			continue // in another run
		}
		names = append(names, test)
		if !listed(string(mayBe), test) {
			unlisted = append(unlisted, test)
		}
	}
	fmt.Fprintf(out, "%d passed, %d skipped:\n", len(r.passed), len(names))
	for _, name := range names {
		fmt.Fprintln(out, "\t"+name)
	}
	if len(unlisted) > 0 {
		return fmt.Errorf("skipped, and not on the list in %s:\n\t%s", list, strings.Join(unlisted, "\n\t"))
	}
	return nil
}

// listed says whether the list has a test, or one that it is part of.
func listed(list, test string) bool {
	pkg, name, _ := strings.Cut(test, " ")
	for line := range strings.Lines(list) {
		fields := strings.Fields(line)
		if len(fields) < 3 || strings.HasPrefix(fields[0], "#") || fields[0] != pkg {
			continue
		}
		if matches, err := path.Match(fields[1], name); err == nil && matches {
			return true
		}
	}
	return false
}
