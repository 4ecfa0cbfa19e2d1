//go:build unix

package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each line that the user gets says what is wrong and what is allowed, and
// nothing was started by then.
func TestBadInputIsAnsweredInOneLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	noExec := writeFile(t, "no-exec", "#!/bin/sh\n", 0o644)
	openKey := writeFile(t, "open.key", strings.Repeat("00", 32)+"\n", 0o644)
	shortKey := writeFile(t, "short.key", "0011223344\n", 0o600)
	noKey := writeFile(t, "no.key", "# none\n", 0o600)
	busy := busyAddr(t)
	kubeconfig := writeFile(t, "kubeconfig", `{apiVersion: v1, kind: Config, current-context: here,
		clusters: [{name: here, cluster: {server: "https://127.0.0.1:1"}}], contexts: [{name: here, context: {cluster: here}}]}`, 0o600)

	const run = "run --id x --cluster gossip://127.0.0.1:0 "
	for _, c := range []struct {
		name string
		args []string // of highlander; what to run is added
		argv []string // instead of what would be run
		env  string   // HIGHLANDER_CLUSTER
		code int
		line string // after "highlander: "; what the system has to say may follow
	}{
		// The id.
		{name: "no id", args: []string{"run"}, code: 2,
			line: `--id is missing; write it before the command, as in: highlander run --id ID -- COMMAND`},
		{name: "empty id", args: []string{"run", "--id", ""}, code: 2,
			line: `--id: invalid id: it is empty; 1 to 255 bytes of UTF-8 are allowed`},
		{name: "over-long id", args: []string{"run", "--id", strings.Repeat("x", 256)}, code: 2,
			line: `--id: invalid id "xxxxxxxxxxxxxxxxxxxx"...: it has 256 bytes; at most 255 are allowed`},
		{name: "control character in the id", args: []string{"run", "--id", "a\nb"}, code: 2,
			line: `--id: invalid id "a\nb": control character U+000A is not allowed`},
		{name: "id that is not UTF-8", args: []string{"run", "--id", "a\xff"}, code: 2,
			line: `--id: invalid id "a\xff": it is not UTF-8`},

		// Flags.
		{name: "unknown flag", args: words(run + "--idd y"), code: 2,
			line: `unknown flag: --idd; highlander run --help lists the flags`},
		{name: "unknown flag with a line break", args: []string{"run", "--a\nb"}, code: 2,
			line: `unknown flag: --a\nb; highlander run --help lists the flags`},
		{name: "unknown short flag", args: words(run + "-z"), code: 2,
			line: `unknown shorthand flag: 'z' in -z; highlander run --help lists the flags`},
		{name: "flag without its value", args: words("status --cluster"), argv: []string{}, code: 2,
			line: `flag needs an argument: --cluster; highlander status --help lists the flags`},
		{name: "negative duration", args: words(run + "--shutdown -1s"), code: 2,
			line: `--shutdown -1s: it must be above zero`},
		{name: "no duration at all", args: words(run + "--shutdown 0"), code: 2,
			line: `--shutdown 0s: it must be above zero`},
		{name: "shutdown that does not fit into the TTL", args: words("run --id x --cluster gossip://127.0.0.1:0?quorum=2&ttl=3s"), code: 2,
			line: `--shutdown 5s, and 400ms for the kill, does not fit the ttl= of --cluster: TTL 3s is too short to stop within 5.4s: less 60ms for clocks and 1.5s for two renewals it leaves 1.44s; ` +
				`a TTL of at least 11.3s, or at most 1.44s to stop, is needed`},
		{name: "shutdown that does not fit into the default TTL", args: words("run --id x --cluster gossip://127.0.0.1:0?quorum=2 --shutdown 6s"), code: 2,
			line: `--shutdown 6s, and 400ms for the kill, does not fit the ttl= of --cluster: TTL 12s is too short to stop within 6.4s: less 240ms for clocks and 6s for two renewals it leaves 5.76s; ` +
				`a TTL of at least 13.4s, or at most 5.76s to stop, is needed`},
		{name: "quorum of a half", args: words("run --id x --cluster gossip://127.0.0.1:0?quorum=2&expect=4"), code: 2,
			line: `--cluster: quorum 2 is not above half of 4 voters (expect): two sides of 2 could each run the child; at least 3 is needed`},
		{name: "duration without unit", args: words(run + "--shutdown 5"), code: 2,
			line: `--shutdown "5": a duration such as 5s, 500ms or 1m30s is allowed`},
		{name: "restart", args: words(run + "--restart never"), code: 2,
			line: `--restart "never": on-failure, always and no are allowed`},
		{name: "negative restarts", args: words(run + "--max-restarts -1"), code: 2,
			line: `--max-restarts -1: it must not be negative`},
		{name: "restarts that are no number", args: words(run + "--max-restarts many"), code: 2,
			line: `--max-restarts "many": a whole number is allowed`},
		{name: "when-done", args: words(run + "--when-done stop"), code: 2,
			line: `--when-done "stop": exit and hold are allowed`},
		{name: "log format", args: words(run + "--log-format xml"), code: 2,
			line: `--log-format "xml": text and json are allowed`},
		{name: "log level", args: words(run + "--log-level loud"), code: 2,
			line: `--log-level "loud": debug, info, warn and error are allowed`},
		{name: "events in no directory", args: words(run + "--events " + dir + "/none/events"), code: 1,
			line: `--events: open ` + dir + `/none/events: no such file or directory`},
		{name: "events in a directory", args: words(run + "--events " + dir), code: 1,
			line: `--events: open ` + dir + `: is a directory`},

		// The command.
		{name: "no command", args: words(run), argv: []string{}, code: 2,
			line: `the command is missing; write it after --, as in: highlander run --id ID -- COMMAND`},
		{name: "command that does not exist", args: words(run), argv: []string{dir + "/none"}, code: 2,
			line: `command "` + dir + `/none" does not exist`},
		{name: "command that is not in PATH", args: words(run), argv: []string{"no-such-command"}, code: 2,
			line: `command "no-such-command" does not exist in any directory of PATH`},
		{name: "command that is not executable", args: words(run), argv: []string{noExec}, code: 2,
			line: `command "` + noExec + `" is not executable`},
		{name: "command that is a directory", args: words(run), argv: []string{dir}, code: 2,
			line: `command "` + dir + `" is a directory, not an executable`},
		{name: "command that is empty", args: words(run), argv: []string{""}, code: 2,
			line: `command "" is empty; the name or the path of an executable is needed`},

		// The cluster.
		{name: "cluster that is no URL", args: words("run --id x --cluster 127.0.0.1:7946"), code: 2,
			line: `--cluster "127.0.0.1:7946" is not a URL; gossip://IP:PORT is one`},
		{name: "cluster that is empty", args: words("run --id x --cluster="), env: "gossip://127.0.0.1:0", code: 2,
			line: `--cluster is empty; give a URL such as gossip://IP:PORT, or leave it out for a cluster of this machine`},
		{name: "cluster from the environment", args: words("run --id x"), env: "127.0.0.1", code: 2,
			line: `HIGHLANDER_CLUSTER "127.0.0.1" is not a URL; gossip://IP:PORT is one`},
		{name: "status of a cluster from the environment", args: words("status"), argv: []string{}, env: "gossip://127.0.0.1:1?x=y", code: 2,
			line: `HIGHLANDER_CLUSTER: unknown parameter "x"; allowed are join, `},
		{name: "unknown scheme", args: words("run --id x --cluster zookeeper://a"), code: 2,
			line: `--cluster: the scheme "zookeeper" is not known; etcd, etcds, gossip, kubernetes, postgres, postgresql are allowed, as in gossip://IP:PORT`},
		{name: "what is no URL with a password", args: words("run --id x --cluster host=db,password=s3cret"), code: 2,
			line: `--cluster: what is given is not a URL; gossip://IP:PORT is one`},
		{name: "what is no URL with a user", args: words("run --id x --cluster postgres:me:s3cret@db"), code: 2,
			line: `--cluster: what is given is not a URL; gossip://IP:PORT is one`},
		{name: "unknown parameter", args: words("run --id x --cluster gossip://127.0.0.1:0?joins=a"), code: 2,
			line: `--cluster: unknown parameter "joins"; allowed are join, name, label, key-file, `},
		{name: "parameter without a value", args: words("run --id x --cluster gossip://127.0.0.1:0?join="), code: 2,
			line: `--cluster: parameter "join" has no value; leave it out or give one`},
		{name: "port out of range", args: words("run --id x --cluster gossip://127.0.0.1:70000"), code: 2,
			line: `--cluster: address "127.0.0.1:70000": port "70000": 0 to 65535 is allowed`},
		{name: "host instead of an IP", args: words("run --id x --cluster gossip://localhost:7946"), code: 2,
			line: `--cluster: address "localhost:7946": "localhost" is not an IP address; IP:PORT is allowed`},
		{name: "port to join out of range", args: words("run --id x --cluster gossip://127.0.0.1:0?join=a:0"), code: 2,
			line: `--cluster: join "a:0": port 0 cannot be joined; HOST and HOST:PORT are allowed`},
		{name: "negative number of nodes", args: words("run --id x --cluster gossip://127.0.0.1:0?expect=-1"), code: 2,
			line: `--cluster: expect=-1: a number of nodes, 0 to 65535, is allowed`},
		{name: "no key beyond loopback", args: words("run --id x --cluster gossip://0.0.0.0:0"), code: 2,
			line: `--cluster: address 0.0.0.0:0 is reachable from other machines, and there is no key; set key-file, or insecure=true to do without`},
		{name: "observer", args: words("run --id x --cluster gossip://127.0.0.1:0?observer=true"), code: 2,
			line: `--cluster: observer=true: an observer runs nothing; leave it out`},
		{name: "port in use", args: words("run --id x --cluster gossip://" + busy), code: 1,
			line: `--cluster: cannot listen on address ` + busy + `: address already in use`},
		{name: "address of another machine", args: words("run --id x --cluster gossip://192.0.2.1:7946?insecure=true"), code: 1,
			line: `--cluster: cannot listen on address 192.0.2.1:7946: cannot assign requested address`},
		{name: "address to join that does not resolve", code: 1,
			// What is logged on the way here is not about the input.
			args: words("run --id x --log-level error --cluster gossip://127.0.0.1:0?join=no-such..host"),
			line: `--cluster: join "no-such..host:7946": the host does not resolve: `},
		{name: "no key file", args: words("run --id x --cluster gossip://127.0.0.1:0?key-file=" + dir + "/none"), code: 2,
			line: `--cluster: key-file ` + dir + `/none: no such file or directory`},
		{name: "key file that others can read", args: words("run --id x --cluster gossip://127.0.0.1:0?key-file=" + openKey), code: 2,
			line: `--cluster: key-file ` + openKey + `: its mode is 0644, others can get at the keys; run: chmod 600 ` + openKey},
		{name: "key of the wrong length", args: words("run --id x --cluster gossip://127.0.0.1:0?key-file=" + shortKey), code: 2,
			line: `--cluster: key-file ` + shortKey + `: line 1: the key has 5 bytes; 16, 24 and 32 are allowed`},
		{name: "key file without a key", args: words("run --id x --cluster gossip://127.0.0.1:0?key-file=" + noKey), code: 2,
			line: `--cluster: key-file ` + noKey + `: there is no key in it; `},

		// etcd.
		{name: "etcd without a host", args: words("run --id x --cluster etcd:///jobs"), code: 2,
			line: `--cluster: host "": the name is missing; HOST:PORT,HOST:PORT is allowed`},
		{name: "etcd with a user in the wrong place", args: words("run --id x --cluster etcd://me:s3cret@db:2379"), code: 2,
			line: `--cluster: a user is not allowed before the host; write user=USER&password-file=FILE`},
		{name: "etcd with a password where the port is", args: words("run --id x --cluster etcd://me:s3cret%zz@db"), code: 2,
			line: `--cluster: a user is not allowed before the host; write user=USER&password-file=FILE`},
		{name: "unknown parameter of etcd", args: words("status --cluster etcd://db?prefx=a"), argv: []string{}, code: 2,
			line: `--cluster: unknown parameter "prefx"; allowed are name, ttl, prefix, ca-file, cert-file, key-file, user, password-file`},
		{name: "TTL of etcd that is none", args: words("bench --cluster etcd://db?ttl=1.5s"), argv: []string{}, code: 2,
			line: `--cluster: TTL 1.5s: whole seconds from 1s to 1h0m0s are allowed`},
		{name: "no CA file of etcd", args: words("run --id x --cluster etcd://db?ca-file=" + dir + "/none"), code: 2,
			line: `--cluster: ca-file: open ` + dir + `/none: no such file or directory`},
		{name: "shutdown that does not fit into the TTL of etcd", args: words("run --id x --cluster etcd://db?ttl=3s"), code: 2,
			line: `--shutdown 5s, and 400ms for the kill, does not fit the ttl= of --cluster: TTL 3s is too short to stop within 5.4s: less 60ms for clocks, 1.5s for two renewals and 100ms for a busy machine it leaves 1.34s; ` +
				`a TTL of at least 12s, or at most 1.34s to stop, is needed`},

		// PostgreSQL.
		{name: "password in a URL that cannot be parsed", args: words("run --id x --cluster postgres://me:s3cret@db:port/jobs"), code: 2,
			line: `--cluster: `},
		{name: "password with a character that is not allowed", args: words("run --id x --cluster postgres://me:s3cret%zz@db/jobs"), code: 2,
			line: `--cluster: `},
		{name: "password as a parameter beside a bad one", args: words("status --cluster postgres://db/jobs?password=s3cret&sslmode=perhaps"), argv: []string{}, code: 2,
			line: `--cluster: `},
		{name: "TTL of PostgreSQL that is too short", args: words("bench --cluster postgres://me:s3cret@db/jobs?ttl=10ms"), argv: []string{}, code: 2,
			line: `--cluster: ttl 10ms: a time from 1s to 2m0s, such as 12s, is allowed`},
		{name: "schema that is PostgreSQL's own", args: words("run --id x --cluster postgres://db/jobs?schema=pg_x"), code: 2,
			line: `--cluster: schema "pg_x": names that begin with pg_ are PostgreSQL's own`},
		{name: "shutdown that does not fit into the TTL of PostgreSQL", args: words("run --id x --shutdown 6s --cluster postgres://db/jobs"), code: 2,
			line: `--shutdown 6s, and 400ms for the kill, does not fit the ttl= of --cluster: TTL 12s is too short to stop within 6.4s: `},
		{name: "schema of what has none", args: words("schema --cluster etcd://db"), argv: []string{}, code: 2,
			line: `--cluster: only postgres:// has a schema; name the one to print, as in --cluster postgres://HOST/DATABASE`},
		{name: "schema of nothing", args: words("schema"), argv: []string{}, code: 2,
			line: `--cluster: only postgres:// has a schema; name the one to print, as in --cluster postgres://HOST/DATABASE`},

		// Kubernetes.
		{name: "namespace that is none", args: words("run --id x --cluster kubernetes://My_Jobs?kubeconfig=" + kubeconfig), code: 2,
			line: `--cluster: namespace "My_Jobs": `},
		{name: "unknown parameter of Kubernetes", args: words("status --cluster kubernetes://default?kubconfig=a"), argv: []string{}, code: 2,
			line: `--cluster: unknown parameter "kubconfig"; allowed are name, ttl, kubeconfig, context`},
		{name: "no kubeconfig", args: words("run --id x --cluster kubernetes://default?kubeconfig=" + dir + "/none"), code: 2,
			line: `--cluster: kubeconfig: stat ` + dir + `/none: no such file or directory`},
		{name: "context that the kubeconfig has not", args: words("run --id x --cluster kubernetes://default?context=there&kubeconfig=" + kubeconfig), code: 2,
			line: `--cluster: kubeconfig: context "there" does not exist`},
		{name: "TTL of Kubernetes that is too short", args: words("run --id x --cluster kubernetes://default?ttl=1s"), code: 2,
			line: `--cluster: ttl 1s: whole seconds from 2s to 10m0s are allowed`},
		{name: "shutdown that does not fit into the TTL of Kubernetes", args: words("run --id x --shutdown 20s --cluster kubernetes://default?kubeconfig=" + kubeconfig), code: 2,
			line: `--shutdown 20s, and 400ms for the kill, does not fit the ttl= of --cluster: TTL 15s is too short to stop within 20.4s: `},

		// Other commands.
		{name: "unknown command", args: words("rum"), argv: []string{}, code: 2,
			line: `unknown command "rum"; highlander --help lists the commands`},
		{name: "help for an unknown command", args: words("help rum"), argv: []string{}, code: 2,
			line: `help for the unknown command "rum"; highlander --help lists the commands`},
		{name: "unknown shell", args: words("completion tcsh"), argv: []string{}, code: 2,
			line: `completion for the unknown shell "tcsh"; bash, fish, powershell and zsh are allowed`},
		{name: "unknown flag of highlander", args: words("--verbose"), argv: []string{}, code: 2,
			line: `unknown flag: --verbose; highlander --help lists the flags`},
		{name: "argument of status", args: words("status hello"), argv: []string{}, code: 2,
			line: `status takes no arguments, and got "hello"`},
		{name: "argument of demo", args: words("demo hello"), argv: []string{}, code: 2,
			line: `demo takes no arguments, and got "hello"`},
		{name: "no switch", args: words("status --json=perhaps"), argv: []string{}, code: 2,
			line: `--json "perhaps": true and false are allowed`},
		{name: "witness without a quorum", args: words("witness --cluster gossip://127.0.0.1:0"), argv: []string{}, code: 2,
			line: `--cluster: a witness needs quorum=N, as on all nodes: without it no votes are needed when a node cannot be reached`},
		{name: "witness that observes", args: words("witness"), argv: []string{}, env: "gossip://127.0.0.1:0?observer=true", code: 2,
			line: `HIGHLANDER_CLUSTER: observer=true: an observer votes on nothing; leave it out`},
		{name: "witness of a server", args: words("witness --cluster etcd://127.0.0.1:1"), argv: []string{}, code: 2,
			line: `--cluster: a witness is a vote more where the nodes vote, with gossip:// and quorum=N; on etcd:// the server decides, and there is nothing for it to do`},
		{name: "witness of a command", args: words("witness --cluster gossip://127.0.0.1:0?quorum=2 x"), argv: []string{}, code: 2,
			line: `witness takes no arguments, and got "x"`},
		{name: "no rounds", args: words("bench --rounds 0"), argv: []string{}, code: 2,
			line: `--rounds 0: at least 1 is needed`},
		{name: "unknown measurement", args: words("bench --only speed"), argv: []string{}, code: 2,
			line: `--only "speed": graceful, kill, crash, freeze, split, cut, quorum-kill, quorum-kill-guard, 100, 1000, 10000, idle, swarm are allowed`},
		{name: "measurement of the other mode", args: words("bench --only split --cluster gossip://?quorum=2"), argv: []string{}, code: 2,
			line: `--only split: that is for available mode; leave quorum out of --cluster`},
		{name: "measurement of quorum mode", args: words("bench --only cut"), argv: []string{}, code: 2,
			line: `--only cut: that is for quorum mode; give --cluster 'gossip://?quorum=2'`},
		{name: "voters for a cluster in quorum mode", args: words("bench --cluster gossip://?quorum=2&join=10.0.0.1"), argv: []string{}, code: 2,
			line: `--cluster: bench would add voters to a cluster in quorum mode; leave address and join out, and it starts one of its own`},
		{name: "no voter to spare", args: words("bench --cluster gossip://?quorum=2&expect=2"), argv: []string{}, code: 2,
			line: `--cluster: quorum 2 of 2 voters: no node can be taken away, so there is nothing to measure; quorum=2 is one to measure`},
		{name: "measurement that needs its own cluster", args: words("bench --only split --cluster gossip://127.0.0.1:1"), argv: []string{}, code: 2,
			line: `--only split needs a cluster of its own; leave --cluster out`},
		{name: "measurement that a server cannot have", args: words("bench --only split --cluster etcd://127.0.0.1:1"), argv: []string{}, code: 2,
			line: `--only split: that cannot be measured on --cluster; graceful, kill, freeze, 1000, idle are allowed there`},
		{name: "guard by hand", args: words("__guard"), argv: []string{}, code: 2, line: `__guard is started by highlander itself`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			marker := filepath.Join(t.TempDir(), "marker")
			args := c.args
			if c.argv == nil {
				c.argv = []string{"touch", marker}
			}
			if len(c.argv) > 0 {
				args = append(append(args, "--"), c.argv...)
			}
			p := prepare(t, roleHighlander, args...)
			p.cmd.Env = append(p.cmd.Env, clusterEnv+"="+c.env)
			p.start()
			p.exits(c.code)
			got := p.stderr.all()
			if strings.Count(got, "\n") != 1 || !strings.Contains(got, c.line) {
				t.Errorf("it says\n%snot one line with\n%s", got, c.line)
			}
			if !strings.HasPrefix(got, "highlander: "+c.line) && c.name != "guard by hand" {
				t.Errorf("the line does not begin with %q", "highlander: "+c.line)
			}
			if strings.Contains(got, "s3cret") {
				t.Error("it tells the password")
			}
			if strings.Contains(got, "Config.") {
				t.Error("it speaks of Go")
			}
			if out := p.stdout.all(); out != "" {
				t.Errorf("standard output has %q", out)
			}
			if exists(marker) {
				t.Error("the command was run")
			}
		})
	}
}

func words(line string) []string { return strings.Fields(line) }

// busyAddr returns an address at which somebody listens already.
func busyAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func TestWithoutACommandThereIsHelpAndAnError(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.exits(2)
	if got := p.stderr.all(); !strings.Contains(got, "Available Commands:") || p.stdout.all() != "" {
		t.Errorf("it says %q, and %q on standard output", got, p.stdout.all())
	}
}

func TestUnreachableClusterIsWaitedFor(t *testing.T) {
	t.Parallel()
	urls := clusterURLs(t, 2)
	first := startNode(t, urls[0]+"&expect=2", "echo ran")
	second := startNode(t, urls[1]+"&expect=2", "echo ran")
	first.exits(0)
	second.exits(0)
}

func TestEventsThatCannotBeWrittenAreLogged(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("there is no /dev/full here")
	}
	p := startNode(t, alone, "echo ran", "--events", "/dev/full")
	p.exits(0)
	p.stderr.next("cannot write an event", "no space left on device")
}
