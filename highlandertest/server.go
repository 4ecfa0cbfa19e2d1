package highlandertest

import (
	"testing"

	"highlander"
)

// Server is what can be done to the server of an engine that has one. Each of
// its functions may be nil if there is no way to do it; the checks that need it
// are then skipped. Those that break something return the function that mends
// it, which may be called again. Nodes are opened, and calls of Acquire begin,
// also while something is broken.
type Server struct {
	// Restart stops the server, as an administrator does, and starts it again
	// with what it has stored. It returns when the server answers.
	Restart func(t *testing.T)

	// LeasesOutliveRestart says that a Restart does not end a lease, as long as
	// its holder has time left to renew it. Else a holder may lose its leases.
	LeasesOutliveRestart bool

	// Hang makes the server hang, as SIGSTOP does: connections stay open, and
	// nothing is answered until resume is called.
	Hang func(t *testing.T) (resume func())

	// CutSend drops what a node sends to the server, and CutReceive what the
	// server sends to the node, until mend is called; the other direction
	// passes, and connections stay open. What was dropped is not delivered later:
	// mend ends the connections that have lost something, as a real outage does.
	CutSend    func(t *testing.T, node highlander.Cluster) (mend func())
	CutReceive func(t *testing.T, node highlander.Cluster) (mend func())

	// Deny makes the credentials of all nodes stop working, until allow is
	// called: what the server does with sessions that are open is up to it.
	Deny func(t *testing.T) (allow func())

	// Harm is what others can do to a lease.
	Harm []Harm
}

// Harm is one thing that somebody with access to the server can do to a lease
// by hand, such as to end the session that it hangs on.
type Harm struct {
	Name string

	// Do does it to the lease of id, which node holds.
	Do func(t *testing.T, node highlander.Cluster, id string)
}
