// Command highlander runs a program on exactly one node of a cluster.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

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
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return 0
	}
	var exit *exitError
	if errors.As(err, &exit) {
		if exit.err != nil {
			fmt.Fprintln(stderr, "highlander:", exit.err)
		}
		return exit.code
	}
	fmt.Fprintln(stderr, "highlander:", err)
	return exitFailure
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
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageErrorf("%w; %s --help lists the flags", err, cmd.CommandPath())
	})
	root.AddCommand(newRunCommand(), newStatusCommand(), newDemoCommand(), newBenchCommand(), newVersionCommand())
	return root
}

// noArgs refuses positional arguments.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageErrorf("%s takes no arguments, and got %q", cmd.CommandPath(), args[0])
	}
	return nil
}

// untilSignal returns a context that ends with SIGINT or SIGTERM.
func untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
}
