// Command highlander runs a program on exactly one node of a cluster.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"highlander/cmd/highlander/internal/guard"
)

// Exit codes, beyond those of the command that is run.
const (
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	guard.Main()
	nodeMain()
	os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr))
}

// execute runs one command line and returns the exit code.
func execute(args []string, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	beStrict(root) // last: the completion command remembers where root writes to
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return 0
	}
	code := exitFailure
	if exit := new(exitError); errors.As(err, &exit) {
		code, err = exit.code, exit.err
	}
	if err != nil {
		fmt.Fprintln(stderr, "highlander:", oneLine(strings.TrimPrefix(err.Error(), "highlander: ")))
	}
	return code
}

// oneLine returns text without line breaks and whatever else would move a
// terminal's cursor: some of it was typed by the user, or came from the network.
func oneLine(text string) string {
	if !strings.ContainsFunc(text, unicode.IsControl) {
		return text
	}
	quoted := strconv.Quote(text)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// exitError ends the program with a code, and with a line if it has an error.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return fmt.Sprintf("exit code %d: %v", e.code, e.err) }
func (e *exitError) Unwrap() error { return e.err }

// usageErrorf is an error in how the program was called.
func usageErrorf(format string, args ...any) error {
	return &exitError{code: exitUsage, err: fmt.Errorf(format, args...)}
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "highlander",
		Short: "Run a program on exactly one node of a cluster",
		Long: `Highlander runs a program on exactly one node of a cluster: every node starts it
the same way, one runs it, the others watch and take over when it goes.`,
		Example: `  highlander run --id hello -- sh -c 'while :; do date; sleep 1; done'
  highlander status
  highlander demo`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageErrorf("unknown command %q; highlander --help lists the commands", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintln(cmd.ErrOrStderr(), cmd.Long)
			fmt.Fprintln(cmd.ErrOrStderr())
			fmt.Fprint(cmd.ErrOrStderr(), cmd.UsageString())
			return &exitError{code: exitUsage}
		},
	}
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(newRunCommand(), newWitnessCommand(), newStatusCommand(), newDemoCommand(), newBenchCommand(), newSchemaCommand(), newVersionCommand(), newClustersHelp())
	return root
}

// beStrict makes usage errors of what cobra's own commands let pass.
func beStrict(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			cmd.Args = func(_ *cobra.Command, args []string) error {
				if found, _, err := root.Find(args); len(args) > 0 && (err != nil || found == root) {
					return usageErrorf("help for the unknown command %q; highlander --help lists the commands", args[0])
				}
				return nil
			}
		case "completion":
			cmd.Args = func(_ *cobra.Command, args []string) error {
				if len(args) > 0 {
					return usageErrorf("completion for the unknown shell %q; bash, fish, powershell and zsh are allowed", args[0])
				}
				return nil
			}
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
			for _, shell := range cmd.Commands() {
				shell.Args = noArgs
			}
		}
	}
}

// flagError says what is wrong with a flag, and what is allowed.
func flagError(cmd *cobra.Command, err error) error {
	var value *pflag.InvalidValueError
	if !errors.As(err, &value) {
		return usageErrorf("%w; %s --help lists the flags", err, cmd.CommandPath())
	}
	allowed := map[string]string{
		"bool":     "true and false are allowed",
		"duration": "a duration such as 5s, 500ms or 1m30s is allowed",
		"int":      "a whole number is allowed",
	}[value.GetFlag().Value.Type()]
	return usageErrorf("--%s %q: %s", value.GetFlag().Name, value.GetValue(), cmp.Or(allowed, value.Unwrap().Error()))
}

// noArgs refuses positional arguments.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageErrorf("%s takes no arguments, and got %q", strings.TrimPrefix(cmd.CommandPath(), "highlander "), args[0])
	}
	return nil
}

// untilSignal calls f with a context that ends with SIGINT or SIGTERM. Ended by
// one, the program exits as a shell expects it, with 128 and its number, unless
// f is content.
func untilSignal(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	go func() {
		select {
		case sig := <-signals:
			signal.Stop(signals) // a second one ends the program at once
			number, _ := sig.(syscall.Signal)
			cancel(&exitError{code: 128 + int(number), err: fmt.Errorf("stopped by a signal: %v", sig)})
		case <-ctx.Done():
		}
	}()
	err := f(ctx)
	if exit := new(exitError); err != nil && errors.As(context.Cause(ctx), &exit) {
		return exit
	}
	return err
}
