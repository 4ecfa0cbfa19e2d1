// Command bench compares highlander on PostgreSQL, etcd and Kubernetes with what
// their users would pick instead, on this machine.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Exit codes.
const (
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	contestantMain()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(execute(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// execute runs one command line and returns the exit code.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	b := &bench{progress: newProgress(stderr)}
	asJSON := false
	flags := b.flags(&asJSON)
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		flags.SetOutput(stdout)
		flags.Usage()
		return 0
	case err != nil:
		return complain(stderr, exitUsage, err)
	case flags.NArg() > 0:
		return complain(stderr, exitUsage, fmt.Errorf("%q: only flags are taken; bench --help lists them", flags.Arg(0)))
	}
	rep, err := b.run(ctx)
	b.progress.done()
	if rep != nil && len(rep.Rows) > 0 {
		print := rep.print
		if asJSON {
			print = func(w io.Writer) error { return json.NewEncoder(w).Encode(rep) }
		}
		err = errors.Join(err, print(stdout))
	}
	switch {
	case ctx.Err() != nil:
		return complain(stderr, exitFailure, errors.New("stopped by a signal"))
	case err != nil:
		return complain(stderr, exitFailure, err)
	}
	return 0
}

func complain(stderr io.Writer, code int, err error) int {
	fmt.Fprintln(stderr, "bench:", err)
	return code
}

// flags returns the flags that fill b and asJSON.
func (b *bench) flags(asJSON *bool) *flag.FlagSet {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // an error is one line, ours
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "Compare highlander with what else there is, on servers that are started for it.\n\nusage: go run ./bench [flags]")
		flags.PrintDefaults()
	}
	b.rounds = 30
	flags.Func("rounds", "how often the fast measurements are made; the slow ones a tenth of that, at least 3 times (default 30)", func(text string) error {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return errors.New("a whole number above 0 is allowed")
		}
		b.rounds = n
		return nil
	})
	flags.Func("only", "measure only these, with commas between: "+strings.Join(selections(), ", "), func(text string) error {
		for name := range strings.SplitSeq(text, ",") {
			if !slices.Contains(selections(), name) {
				return fmt.Errorf("%q: %s are allowed", name, strings.Join(selections(), ", "))
			}
			b.only = append(b.only, name)
		}
		return nil
	})
	flags.BoolVar(asJSON, "json", false, "print JSON")
	b.urls = map[string]string{}
	for _, engine := range engineNames() {
		flags.Func(engine, "an existing server, as `URL` for highlander --cluster, instead of one that is started", func(text string) error {
			scheme, _, ok := strings.Cut(text, "://")
			if !ok || !slices.Contains(schemes[engine], scheme) {
				return fmt.Errorf("a URL that begins with %s:// is allowed", strings.Join(schemes[engine], ":// or "))
			}
			b.urls[engine] = text
			return nil
		})
	}
	return flags
}

// schemes are those of the URLs of each engine.
var schemes = map[string][]string{
	"postgres":   {"postgres", "postgresql"},
	"etcd":       {"etcd", "etcds"},
	"kubernetes": {"kubernetes"},
}

// engineNames returns the engines in the order of the comparisons.
func engineNames() (names []string) {
	for _, c := range comparisons() {
		if !slices.Contains(names, c.engine) {
			names = append(names, c.engine)
		}
	}
	return names
}

// selections are the words that --only takes.
func selections() (names []string) {
	for _, engine := range engineNames() {
		names = append(names, engine)
		for _, c := range comparisons() {
			if c.engine == engine {
				names = append(names, c.engine+"/"+c.name)
			}
		}
	}
	return names
}
