package main

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"highlander/postgres"
)

// command runs a command line in this process.
func command(t *testing.T, args ...string) (stdout string) {
	t.Helper()
	var out, log bytes.Buffer
	if code := execute(args, &out, &log); code != 0 || log.Len() > 0 {
		t.Errorf("%q exits with %d and says %q", args, code, log.String())
	}
	return out.String()
}

func TestEachCommandHasHelpWithAnExample(t *testing.T) {
	root := newRootCommand()
	commands := 0
	for _, cmd := range root.Commands() {
		if cmd.Name() == "help" || cmd.Name() == "completion" || !cmd.Runnable() {
			continue
		}
		commands++
		help := command(t, cmd.Name(), "--help")
		if again := command(t, "help", cmd.Name()); again != help {
			t.Errorf("help %s differs from %[1]s --help", cmd.Name())
		}
		for _, want := range []string{"Usage:\n  highlander " + cmd.Name(), "Examples:\n  highlander " + cmd.Name()} {
			if !strings.Contains(help, want) {
				t.Errorf("%s --help has no %q", cmd.Name(), want)
			}
		}
	}
	if commands != 7 {
		t.Errorf("there are %d commands, not 7", commands)
	}
	if help := command(t, "--help"); help != command(t, "help") || !strings.Contains(help, "Examples:\n  highlander run") {
		t.Error("highlander --help lacks an example, or differs from highlander help")
	}
}

// The engines know which parameters there are; the help of the command must not
// lag behind.
func TestHelpListsTheParametersOfTheURL(t *testing.T) {
	help := command(t, "help", "clusters")
	if !strings.Contains(command(t, "run", "--help"), `"highlander help clusters"`) {
		t.Error("the help of run does not name that of clusters")
	}
	for scheme, parse := range engines {
		if !strings.Contains(help, scheme+"://") && scheme != "postgresql" {
			t.Errorf("the help does not name %s", scheme)
		}
		if strings.HasPrefix(scheme, "postgres") {
			continue // it passes on what it does not know
		}
		_, err := parse(scheme + "://default?x=y")
		_, list, ok := strings.Cut(err.Error(), "allowed are ")
		if !ok {
			t.Fatalf("the engine does not list its parameters: %v", err)
		}
		for param := range strings.SplitSeq(list, ", ") {
			if param == "observer" { // run refuses it, and status is one
				continue
			}
			if !strings.Contains(help, " "+param+"=") {
				t.Errorf("the help does not explain %s of %s", param, scheme)
			}
		}
	}
	for line := range strings.Lines(help) {
		if len(line) > 82 {
			t.Errorf("a line is too wide for a terminal: %s", line)
		}
	}
}

func TestSchemaPrintsTheSQL(t *testing.T) {
	if got := command(t, "schema", "--cluster", "postgres://db/jobs?schema=mine"); got != postgres.Schema("mine") {
		t.Errorf("it prints\n%s", got)
	}
	if got := command(t, "schema", "--cluster", "postgres://db/jobs"); got != postgres.Schema(postgres.DefaultSchema) {
		t.Errorf("it prints\n%s", got)
	}
}

func TestHelpOfBenchListsTheMeasurements(t *testing.T) {
	help := command(t, "bench", "--help")
	for _, name := range measureNames() {
		if !strings.Contains(help, name) {
			t.Errorf("the help does not name %s", name)
		}
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "fish", "powershell", "zsh"} {
		if script := command(t, "completion", shell); !strings.Contains(script, "highlander") {
			t.Errorf("there is no completion for %s", shell)
		}
	}
	// What the scripts ask for.
	var out bytes.Buffer
	if execute([]string{"__complete", "r"}, &out, io.Discard); !strings.HasPrefix(out.String(), "run\t") {
		t.Errorf("r is completed to %q, not to run", out.String())
	}
}

func TestVersion(t *testing.T) {
	if got := command(t, "version"); !strings.HasPrefix(got, "highlander ") || strings.Count(got, "\n") != 1 {
		t.Errorf("the version is %q", got)
	}
}

func TestOutputThatCannotBeWrittenIsAnError(t *testing.T) {
	var log bytes.Buffer
	if code := execute([]string{"version"}, brokenWriter{}, &log); code != exitFailure || log.String() != "highlander: the disk is full\n" {
		t.Errorf("it exits with %d and says %q", code, log.String())
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("the disk is full") }
