package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"highlander"
	"highlander/gossip"
)

// statusWithin is when a view is shown at the latest, complete or not, and how
// long a server may take to answer.
const statusWithin = 5 * time.Second

// observer is what status looks through. It changes nothing.
type observer struct {
	look   func(context.Context) (view, error)
	every  time.Duration // how often to look
	steady time.Duration // unchanged for so long, a view is complete
	nobody error         // what it means that there are no members; nil if that can be
	close  func() error
}

func newStatusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the members of the cluster, the ids and who holds them",
		Long: `Status prints the members of a cluster, the ids, their holders, the fencing tokens and
since when they are held. It changes nothing: it joins an embedded cluster as an
observer, which votes on nothing, and shows its mode too; of a server it asks what
it may read. Kubernetes knows holders only, not who waits.

With --json, "problems" lists what is wrong with the cluster: "different settings",
"no quorum", "too many voters". It is empty when all is well.`,
		Example: `  highlander status
  highlander status --json | jq -r '.holders[].node'
  highlander status --watch --cluster 'gossip://10.0.0.5:7946?key-file=/etc/highlander.key'
  highlander status --cluster postgres://monitor@db.internal/jobs`,
		Args: noArgs,
	}
	url := addClusterFlag(cmd)
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	watch := cmd.Flags().Bool("watch", false, "go on, and print again when something changes")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		at, err := url.parse()
		if err != nil {
			return err
		}
		return untilSignal(cmd.Context(), func(ctx context.Context) error {
			o, err := at.observe(ctx)
			if err != nil {
				return err
			}
			defer o.close()
			print := statusPrinter(cmd.OutOrStdout(), *asJSON, *watch)
			if !*watch {
				return o.show(ctx, print)
			}
			return o.watch(ctx, print, func(words string) { fmt.Fprintln(cmd.ErrOrStderr(), "highlander:", oneLine(words)) })
		})
	}
	return cmd
}

// view is what status shows.
type view struct {
	Engine   string       `json:"engine"`           // the scheme of the URL
	Server   string       `json:"server,omitempty"` // gossip has none
	Modes    []modeView   `json:"modes"`            // one, unless nodes have different settings
	Problems []string     `json:"problems"`
	Members  []memberView `json:"members"`
	Holders  []holderView `json:"holders"`

	nodesUnknown bool // to the server
}

type modeView struct {
	Mode   string `json:"mode"` // available, quorum
	InView int    `json:"voters_in_view"`
	Voters int    `json:"voters,omitempty"`
	Quorum int    `json:"quorum,omitempty"`
	TTL    string `json:"ttl,omitempty"`
}

func newModeView(m gossip.Mode) modeView {
	if m.Quorum == 0 {
		return modeView{Mode: "available", InView: m.InView}
	}
	return modeView{Mode: "quorum", InView: m.InView, Voters: m.Voters, Quorum: m.Quorum, TTL: m.TTL.String()}
}

// What can be wrong with a cluster.
const (
	differentSettings = "different settings"
	noQuorum          = "no quorum"
	tooManyVoters     = "too many voters"
)

// problem returns what is wrong with the voters of one mode, or nothing.
func (v modeView) problem() string {
	switch {
	case v.Quorum == 0:
		return ""
	case v.InView < v.Quorum:
		return noQuorum
	case v.InView > v.Voters:
		return tooManyVoters
	}
	return ""
}

func problemsOf(modes []modeView) []string {
	problems := []string{}
	if len(modes) > 1 {
		problems = append(problems, differentSettings)
	}
	for _, m := range modes {
		if p := m.problem(); p != "" && !slices.Contains(problems, p) {
			problems = append(problems, p)
		}
	}
	return problems
}

func (v modeView) String() string {
	if v.Quorum == 0 {
		return fmt.Sprintf("available mode: %d voters in view", v.InView)
	}
	problem := ""
	if p := v.problem(); p != "" {
		problem = strings.ToUpper(p) + ", "
	}
	return fmt.Sprintf("quorum mode: %s%d of %d voters in view, %d needed; TTL %s", problem, v.InView, v.Voters, v.Quorum, v.TTL)
}

type memberView struct {
	Node  string    `json:"node"`
	Addr  string    `json:"addr,omitempty"` // gossip
	Since time.Time `json:"since,omitzero"` // of a server
}

type holderView struct {
	ID    string    `json:"id"`
	Node  string    `json:"node"`
	Token uint64    `json:"token"`
	Since time.Time `json:"since"`
	Meta  string    `json:"meta,omitempty"`
}

func (v view) equal(w view) bool {
	return slices.Equal(v.Modes, w.Modes) && slices.Equal(v.Members, w.Members) && slices.EqualFunc(v.Holders, w.Holders, func(a, b holderView) bool {
		return a.ID == b.ID && a.Node == b.Node && a.Token == b.Token && a.Meta == b.Meta
	})
}

func newView(engine string) view {
	return view{Engine: engine, Modes: []modeView{}, Problems: []string{}, Members: []memberView{}, Holders: []holderView{}}
}

// addHolders looks who holds what.
func (v *view) addHolders(ctx context.Context, cluster highlander.Cluster) error {
	holders, err := cluster.Holders(ctx)
	for _, h := range holders {
		v.Holders = append(v.Holders, holderView{h.ID, h.Node, h.Token, h.Since, h.Meta})
	}
	return err
}

// show prints the view once it is steady.
func (o *observer) show(ctx context.Context, print func(view) error) error {
	return o.follow(ctx, func(v view, err error) (goOn bool, _ error) {
		if err == nil && len(v.Members) == 0 {
			err = o.nobody
		}
		if err != nil {
			return false, err
		}
		return false, print(v)
	})
}

// watch prints the view once it is steady, and again after each change, until ctx
// ends, which is how a watch is ended. Where the server does not answer it says so
// once and asks on.
func (o *observer) watch(ctx context.Context, print func(view) error, say func(string)) error {
	failing := false
	err := o.follow(ctx, func(v view, err error) (goOn bool, _ error) {
		if err != nil {
			if !failing {
				say(err.Error() + "; trying on")
			}
			failing = true
			return true, nil
		}
		if failing {
			say("the server answers again")
		}
		failing = false
		err = print(v)
		return err == nil, err
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// follow shows each steady view, or why there is none, until it need not go on.
func (o *observer) follow(ctx context.Context, show func(view, error) (goOn bool, _ error)) error {
	tick := time.NewTicker(o.every)
	defer tick.Stop()
	var last view
	begin := time.Now()
	changed, shown := begin, false
	for {
		v, err := o.look(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil && !v.equal(last) {
			last, changed = v, time.Now()
			shown = false
		}
		if err != nil || !shown && (time.Since(changed) >= o.steady || time.Since(begin) >= statusWithin) {
			shown = err == nil // what comes after a failure is shown again
			if goOn, err := show(v, err); err != nil || !goOn {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// statusPrinter returns what prints a view: JSON, one object a line, or a
// table, in a terminal over the last one.
func statusPrinter(w io.Writer, asJSON, watch bool) func(view) error {
	if asJSON {
		out := json.NewEncoder(w)
		return func(v view) error { return out.Encode(v) }
	}
	clear := watch && terminalOf(w) != nil
	return func(v view) error {
		if clear {
			fmt.Fprint(w, "\033[H\033[2J")
		} else if watch {
			fmt.Fprintln(w, time.Now().Format(time.TimeOnly))
		}
		return v.print(w)
	}
}

func (v view) print(w io.Writer) error {
	if len(v.Modes) > 1 {
		fmt.Fprintln(w, "NODES HAVE DIFFERENT SETTINGS; all need the same")
	}
	for _, m := range v.Modes {
		fmt.Fprintln(w, m)
	}
	if v.Server != "" {
		fmt.Fprintln(w, oneLine(v.Server))
	}
	fmt.Fprintln(w)
	if err := v.printMembers(w); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "ID (%d)\tHOLDER\tTOKEN\tSINCE\tMETA\n", len(v.Holders))
	for _, h := range v.Holders {
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\n", oneLine(h.ID), oneLine(h.Node), h.Token, h.Since.Local().Format(time.DateTime), oneLine(h.Meta))
	}
	return t.Flush()
}

// printMembers prints who is there, if the server knows that.
func (v view) printMembers(w io.Writer) error {
	if v.nodesUnknown {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	what := "ADDRESS"
	if v.Server != "" {
		what = "SINCE"
	}
	fmt.Fprintf(t, "MEMBERS (%d)\t%s\n", len(v.Members), what)
	for _, m := range v.Members {
		where := m.Addr
		if v.Server != "" {
			where = m.Since.Local().Format(time.DateTime)
		}
		fmt.Fprintf(t, "%s\t%s\n", oneLine(m.Node), where)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}
