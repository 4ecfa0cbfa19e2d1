package main

import (
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"highlander"
	"highlander/cmd/highlander/internal/guard"
)

func newRunCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run --id ID [flags] -- COMMAND [ARG...]",
		Short: "Run a command on one node of the cluster",
		Long: `Run waits until this node holds the id and then runs the command. The command is
executed directly, with no shell in between, in a process group of its own, and
has highlander's standard output and error, and its standard input unless that is
a terminal. It finds HIGHLANDER_ID, HIGHLANDER_NODE and HIGHLANDER_TOKEN in its
environment.

SIGINT, SIGTERM or the end of its terminal stop the command, release the id and
exit with the command's code; a second SIGINT or SIGTERM kills the command. Every
other signal is passed on. When highlander ends, however that comes about,
nothing of the command survives. One that is stopped (Ctrl-Z) or frozen loses its
command within ` + frozenAfter.String() + `, or, where leases run out (quorum mode, PostgreSQL, etcd,
Kubernetes), ` + killMargin.String() + ` before its lease does, and another node takes over.`,
		Example: `  highlander run --id hello -- sh -c 'while :; do date; sleep 1; done'
  highlander run --id mailer --cluster 'gossip://10.0.0.5:7946?join=mail.internal&key-file=/etc/highlander.key' -- /usr/bin/mailer
  highlander run --id mailer --cluster postgres://mailer@db.internal/jobs -- /usr/bin/mailer
  highlander run --id nightly --restart no --when-done hold -- ./nightly-job`,
	}
	cmd.Flags().SetInterspersed(false) // the flags of COMMAND are its own
	r := &runFlags{}
	cmd.Flags().StringVar(&r.id, "id", "", "what runs once: all nodes with the same id compete (required)")
	url := addClusterFlag(cmd)
	cmd.Flags().StringVar(&r.restart, "restart", "on-failure", "when a command that ended is run again: on-failure, always or no")
	cmd.Flags().DurationVar(&r.shutdown, "shutdown", highlander.DefaultShutdown, "how long the command may take from SIGTERM to SIGKILL")
	cmd.Flags().IntVar(&r.maxRestarts, "max-restarts", highlander.DefaultMaxRestarts, "how many restarts within 5 s; one more gives the id to another node")
	cmd.Flags().StringVar(&r.whenDone, "when-done", "exit", "what to do when the command is done: exit, or hold the id so that no node runs it again")
	cmd.Flags().StringVar(&r.events, "events", "", "append the events to this file, a JSON object a line")
	logs := addLogFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		log, err := logs.logger(cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		at, err := url.parse()
		if err != nil {
			return err
		}
		if err := at.usable(at.checkRun()); err != nil {
			return err
		}
		if !cmd.Flags().Changed("id") {
			return usageErrorf("--id is missing; write it before the command, as in: highlander run --id ID -- COMMAND")
		}
		job, err := r.job(args, log)
		if err != nil {
			return err
		}
		if err := at.checkStopWithin(job.spec.Shutdown); err != nil {
			return usageErrorf("--shutdown %v, and %v for the kill, does not fit the ttl= of %s: %w", r.shutdown, killMargin, at.source, err)
		}
		job.leasesRunOut = at.leasesRunOut()
		return job.run(cmd.Context(), at)
	}
	return cmd
}

type runFlags struct {
	id, restart, whenDone, events string
	shutdown                      time.Duration
	maxRestarts                   int
}

// job checks the flags; what is wrong with them is a usage error.
func (f *runFlags) job(args []string, log *slog.Logger) (*job, error) {
	if err := highlander.ValidateID(f.id); err != nil {
		return nil, usageErrorf("--id: %w", err)
	}
	restarts := map[string]highlander.Restart{"on-failure": highlander.Transient, "always": highlander.Permanent, "no": highlander.Temporary}
	restart, ok := restarts[f.restart]
	switch {
	case !ok:
		return nil, usageErrorf("--restart %q: on-failure, always and no are allowed", f.restart)
	case f.whenDone != "exit" && f.whenDone != "hold":
		return nil, usageErrorf("--when-done %q: exit and hold are allowed", f.whenDone)
	case f.shutdown <= 0:
		return nil, usageErrorf("--shutdown %v: it must be above zero", f.shutdown)
	case f.maxRestarts < 0:
		return nil, usageErrorf("--max-restarts %d: it must not be negative", f.maxRestarts)
	case len(args) == 0:
		return nil, usageErrorf("the command is missing; write it after --, as in: highlander run --id ID -- COMMAND")
	}
	path, err := guard.LookPath(args[0])
	if err != nil {
		return nil, usageErrorf("%w", err)
	}
	maxRestarts := f.maxRestarts
	if maxRestarts == 0 {
		maxRestarts = -1 // none; zero would be the default
	}
	j := &job{log: log, path: path, args: args, shutdown: f.shutdown, hold: f.whenDone == "hold", eventsFile: f.events}
	j.spec = highlander.ChildSpec{ID: f.id, Service: j, Restart: restart, Shutdown: f.shutdown + killMargin, MaxRestarts: maxRestarts}
	return j, nil
}
