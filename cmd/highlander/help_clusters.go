package main

import "github.com/spf13/cobra"

// newClustersHelp is a topic of help: there is nothing to run.
func newClustersHelp() *cobra.Command {
	return &cobra.Command{Use: "clusters", Short: "What --cluster can name, and the parameters of each", Long: clustersHelp}
}

const clustersHelp = `A cluster is where leases come from. --cluster=URL names it, or in its absence
` + clusterEnv + `.
Everybody on a machine can read the flags of its processes: a password belongs
into ` + clusterEnv + `, or better into the files named below.

  URL?PARAMETER=VALUE&PARAMETER=VALUE...      quote it, for the shell's sake

Parameters of all four:
  name=NAME           name of this node; the host name by default
  ttl=TIME            how long a lease lasts unless it is renewed. --shutdown has
                      to fit; what is refused for that says how much is needed

gossip://IP:PORT      the nodes themselves; IP:PORT is what to listen on. With no
                      URL at all the processes of this machine form a cluster
  join=HOST:PORT,...  nodes to join, one of them is enough
  key-file=FILE       encrypt with the keys in it, the first one; needed beyond
                      loopback; read again when it changes
  label=LABEL         name of the cluster; others are strangers
  expect=N            wait until N nodes are there before taking part; with
                      quorum: how many voters there are (2*quorum-1)
  quorum=N            never run two: it takes N voters to hold an id, and a
                      side of the network with fewer stops what it runs. Each
                      needs a name that is its own, and the same at each start
  ttl=TIME            with quorum only (12s); without it leases do not run out
  advertise=IP:PORT   where others reach this node, if not at IP:PORT
  insecure=true       do without a key

postgres://USER@HOST:PORT/DATABASE
  schema=SCHEMA       where its tables are (highlander); they are made on first
                      use, or with what "highlander schema" prints
  ttl=TIME            (12s)
  All else is as psql has it: sslmode, sslrootcert, ..., PGPASSFILE, PGPASSWORD
  In a password in the URL write %2F for /, %3F for ?, %23 for # and %40 for @

etcd://HOST:PORT,HOST:PORT/PREFIX   etcds:// for TLS as the system trusts it
  PREFIX              what all keys begin with (/highlander); prefix=PREFIX is
                      for one that is no path
  ttl=TIME            (12s)
  ca-file=FILE        TLS, trusting these certificates
  cert-file=FILE, key-file=FILE     this node's certificate and key, for TLS
  user=USER, password-file=FILE     if etcd asks for them

kubernetes://NAMESPACE
  kubeconfig=FILE     in a pod the pod's service account is used, elsewhere
                      KUBECONFIG or ~/.kube/config
  context=CONTEXT     of the kubeconfig; its current one by default
  ttl=TIME            (15s)
`
