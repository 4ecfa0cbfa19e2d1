package claims

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var updateFlag = flag.Bool("update", false, "write what the scripts do into testdata")

// TestScripts runs the scripts in testdata: commands, a line of dashes, and
// what happens then, up to an empty line. They explain the protocol, so they
// are short; what they do not show the simulation does.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, want := runScript(t, string(text)), string(text)
			if *updateFlag {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			compareScripts(t, file, got, want)
		})
	}
}

func compareScripts(t *testing.T, file, got, want string) {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		line := func(s []string) string {
			if i < len(s) {
				return s[i]
			}
			return "(end)"
		}
		if line(g) != line(w) {
			t.Fatalf("script differs\n%s:%d\n got: %s\nwant: %s\n(go test ./internal/claims -run Scripts -update accepts it)", file, i+1, line(g), line(w))
		}
	}
}

// runScript returns the script with what happens in place of what was expected.
func runScript(t *testing.T, text string) string {
	s := &script{t: t, now: simStart, log: newJournal(), nodes: map[Node]*scriptNode{}, told: map[string]news{}, cuts: map[[2]Node]bool{}}
	var out strings.Builder
	expected := false
	for _, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		switch {
		case line == "":
			expected = false
			out.WriteString("\n")
		case expected:
		case line == "----":
			expected = true
			out.WriteString("----\n")
			for _, l := range s.log.lines {
				out.WriteString(l + "\n")
			}
			s.log.lines = nil
		default:
			out.WriteString(line + "\n")
			if !strings.HasPrefix(line, "#") {
				s.do(line)
			}
		}
	}
	return out.String()
}

// script is a cluster that does what it is told. Messages wait until they are
// delivered or lost.
type script struct {
	t       *testing.T
	now     Instant
	nodes   map[Node]*scriptNode
	flight  []flight
	cut     []Node // those on one side of a split
	cuts    map[[2]Node]bool
	cfg     Config
	brief   bool // acknowledgements are not told
	running bool // nor are beats
	told    map[string]news
	log     *journal
}

type scriptNode struct {
	m      *Machine
	name   string
	silent map[Node]bool
	frozen bool
	gone   bool
}

type news struct {
	ver  HLC
	gave uint64
}

type flight struct {
	from, to Node
	b        []byte
}

// do carries out one command.
func (s *script) do(line string) {
	s.now = s.now.add(time.Millisecond)
	word := strings.Fields(line)
	args := word[1:]
	s.brief = word[0] == "deliver" && len(args) == 0
	switch word[0] {
	case "quorum": // quorum COUNT VOTERS TTL: of the nodes that start from now on
		s.cfg = Config{Quorum: s.number(args[0]), Voters: s.number(args[1]), TTL: s.duration(args[2])}
	case "nodes": // nodes COUNT: they all see each other
		for n := range Node(s.number(args[0])) {
			s.start(n+1, true)
		}
	case "join": // join NODE [NAME]: it meets all others, as the last step of joining does
		s.start(s.node(args[0]), true, args[1:]...)
	case "observer": // observer NODE: it joins, but never votes
		s.start(s.node(args[0]), false)
	case "claim": // claim NODE ID [DURATION]: the last is how long stopping may take
		n := s.node(args[0])
		stopWithin := s.duration(append(args, "0s")[2])
		s.input(n, func(m *Machine) { s.say("%v is claimed", m.Acquire(s.now, args[1], "", stopWithin)) })
	case "release": // release CLAIM ID
		n, seq, _ := strings.Cut(args[0], "/")
		s.release(s.node(n), uint64(s.number(seq)), args[1])
	case "deliver": // deliver: everything; deliver FROM TO: what waits between these
		s.deliver(args, true)
	case "lose": // lose: everything; lose FROM TO
		s.deliver(args, false)
	case "repeat": // repeat FROM TO: what waits is there twice
		s.flight = append(s.flight, s.waiting(args)...)
	case "tick": // tick COUNT: that many seconds pass, with all messages
		for range s.number(args[0]) {
			s.tick()
		}
	case "run": // run DURATION: it passes, with all messages, ticks and what else is due
		s.run(s.duration(args[0]))
	case "pass": // pass DURATION: it passes, and nobody does anything
		s.now = s.now.add(s.duration(args[0]))
	case "advance": // advance NODE
		s.input(s.node(args[0]), func(m *Machine) { m.Advance(s.now) })
	case "cut", "mend": // cut FROM TO: what the one sends does not reach the other
		s.cuts[[2]Node{s.node(args[0]), s.node(args[1])}] = word[0] == "cut"
	case "dead": // dead NODE OTHER...: these learn that the node is gone
		for _, o := range args[1:] {
			s.input(s.node(o), func(m *Machine) { m.Dead(s.now, s.node(args[0])) })
		}
	case "goodbye": // goodbye NODE: it leaves, and tells all
		s.goodbye(s.node(args[0]))
	case "lease": // lease CLAIM ID: how long it lasts
		s.lease(args[0], args[1])
	case "support": // support CLAIM ID AGE: who has renewed it since, and who has not
		s.support(args[0], args[1], s.duration(args[2]))
	case "names": // names NODE: what it thinks of the names of the voters
		m := s.nodes[s.node(args[0])].m
		s.say("%s: too many %v, shared %v", args[0], m.Excess(), m.Shared())
	case "see", "miss": // see NODE OTHER: what the failure detector of NODE says
		s.view(s.node(args[0]), s.node(args[1]), word[0] == "see")
	case "split": // split NODE...: these and the others neither reach nor see each other
		s.split(args)
	case "heal":
		s.heal()
	case "crash": // crash NODE: all others are told
		s.crash(s.node(args[0]))
	case "freeze":
		s.nodes[s.node(args[0])].frozen = true
	case "wake":
		s.nodes[s.node(args[0])].frozen = false
	case "holder": // holder ID: what each node says
		s.holder(args[0])
	case "known": // known: how many ids each node keeps
		for _, n := range s.all() {
			s.say("n%d keeps %d ids", n, len(s.nodes[n].m.ids))
		}
	default:
		s.t.Fatalf("no command %q", line)
	}
}

func (s *script) say(format string, args ...any) { s.log.add(-1, format, args...) }

func (s *script) number(arg string) int {
	n, err := strconv.Atoi(arg)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *script) node(arg string) Node { return Node(s.number(strings.TrimPrefix(arg, "n"))) }

// all returns the nodes that run.
func (s *script) all() []Node {
	var all []Node
	for n, x := range s.nodes {
		if !x.gone {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all
}

func (s *script) start(n Node, voter bool, name ...string) {
	x := &scriptNode{name: append(name, fmt.Sprint("n", n))[0], silent: map[Node]bool{}}
	cfg := s.cfg
	cfg.Self, cfg.Name, cfg.Observer = n, x.name, !voter
	x.m = New(s.now, cfg)
	s.nodes[n] = x
	for _, o := range s.all() {
		if o != n {
			x.m.MergeHLC(s.now, s.nodes[o].m.HLC())
			s.input(n, func(m *Machine) { m.NodeUp(s.now, o, s.nodes[o].name, true) })
			s.input(o, func(m *Machine) { m.NodeUp(s.now, n, x.name, voter) })
		}
	}
}

func (s *script) duration(arg string) time.Duration {
	d, err := time.ParseDuration(arg)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

// run lets time pass: whatever is due is done, and all messages arrive.
func (s *script) run(d time.Duration) {
	s.brief, s.running = true, true
	end := s.now.add(d)
	tick := s.now.add(time.Second)
	for s.deliver(nil, true); ; s.deliver(nil, true) {
		next := min(end.Up, tick.Up)
		for _, n := range s.all() {
			if at, ok := s.nodes[n].m.NextAdvance(); ok && !s.nodes[n].frozen {
				next = min(next, max(at, s.now.Up))
			}
		}
		s.now = s.now.add(next - s.now.Up)
		if s.now.Up >= end.Up {
			break
		}
		ticks := s.now.Up >= tick.Up
		if ticks {
			tick = tick.add(time.Second)
		}
		for _, n := range s.all() {
			switch at, ok := s.nodes[n].m.NextAdvance(); {
			case s.nodes[n].frozen:
			case ticks:
				s.input(n, func(m *Machine) { m.Tick(s.now) })
			case ok && at <= s.now.Up:
				s.input(n, func(m *Machine) { m.Advance(s.now) })
			}
		}
	}
	s.brief, s.running = false, false
}

func (s *script) goodbye(n Node) {
	s.nodes[n].gone = true
	for _, o := range s.all() {
		s.input(o, func(m *Machine) { m.Goodbye(s.now, n) })
	}
}

func (s *script) lease(claim, id string) {
	m, c := s.claim(claim, id)
	if end := m.Expires(c); end != 0 {
		s.say("%s lasts %v", claim, (end - s.now.Up).Round(10*time.Millisecond))
		return
	}
	s.say("%s is no lease", claim)
}

func (s *script) support(claim, id string, age time.Duration) {
	m, c := s.claim(claim, id)
	by := m.Support(c, s.now.Up-age)
	s.say("%s has %d votes, silent %v, no vote %v, gone %v", claim, by.Votes, by.Silent, by.NoVote, by.Gone)
}

// claim returns a claim, the zero one if there is none, and the machine of its
// node.
func (s *script) claim(claim, id string) (*Machine, Claim) {
	n, seq, _ := strings.Cut(claim, "/")
	m := s.nodes[s.node(n)].m
	for _, o := range m.ids[id].own {
		if o.Seq == uint64(s.number(seq)) {
			return m, o.Claim
		}
	}
	return m, Claim{}
}

// input gives something to n's machine, tells what it did, and fetches what it
// has to say.
func (s *script) input(n Node, do func(*Machine)) {
	x := s.nodes[n]
	do(x.m)
	events := x.m.Events()
	for _, e := range events {
		if e.Kind == Conflict {
			s.say("%v ENDS, another holder is kept", e.Claim)
		}
		if e.Kind == Expired {
			s.say("%v HAS RUN OUT", e.Claim)
		}
	}
	s.tellSilence(n)
	for _, line := range s.log.tell(x.m) {
		s.say("%s", line)
	}
	for _, e := range events {
		if e.Kind == Granted {
			s.say("%v IS HANDED OUT with token %s", e.Claim, s.log.token(e.ID, e.Token))
		}
	}
	if !x.frozen {
		s.fetch(n)
	}
}

func (s *script) tellSilence(n Node) {
	x := s.nodes[n]
	for _, o := range s.all() {
		p := x.m.byNode[o]
		silent := p != nil && p.inView && p.silent()
		switch {
		case silent && !x.silent[o]:
			s.say("n%d takes n%d for silent", n, o)
		case !silent && x.silent[o]:
			s.say("n%d takes n%d for silent no more", n, o)
		}
		x.silent[o] = silent
	}
}

// fetch puts what n has to say on its way. The same said to several is told
// once.
func (s *script) fetch(n Node) {
	type said struct {
		what string
		to   []string
	}
	var all []said
	for _, to := range s.nodes[n].m.Outbox(nil) {
		msg := s.nodes[n].m.Message(s.now, to, 100)
		if s.reaches(n, to) {
			s.flight = append(s.flight, flight{n, to, AppendMessage(nil, msg)})
		}
		news := slices.DeleteFunc(slices.Clone(msg.Updates), func(u Update) bool { return s.toldBefore(n, to, u) })
		shown := Message{From: n, To: to, Updates: news}
		if !s.running {
			shown.Beat, shown.Back = msg.Beat, msg.Back
		}
		what := s.log.message(shown)
		if what == "" {
			continue
		}
		i := slices.IndexFunc(all, func(a said) bool { return a.what == what })
		if i < 0 {
			i = len(all)
			all = append(all, said{what: what})
		}
		all[i].to = append(all[i].to, fmt.Sprintf("n%d", to))
	}
	for _, a := range all {
		s.say("    n%d -> %s  %s", n, strings.Join(a.to, ", "), a.what)
	}
}

// toldBefore says whether u only acknowledges, or says again what is not
// acknowledged. That is left out when everything is delivered.
func (s *script) toldBefore(from, to Node, u Update) bool {
	key := fmt.Sprint(from, to, u.ID)
	was := s.told[key]
	s.told[key] = news{u.Ver, u.Gave}
	return s.brief && was == s.told[key]
}

func (s *script) reaches(from, to Node) bool {
	return !s.nodes[to].gone && !s.cuts[[2]Node{from, to}] && slices.Contains(s.cut, from) == slices.Contains(s.cut, to)
}

func (s *script) release(n Node, seq uint64, id string) {
	for _, o := range s.nodes[n].m.ids[id].own {
		if o.Seq == seq {
			s.input(n, func(m *Machine) { m.Release(s.now, id, o.Claim) })
			return
		}
	}
	s.t.Fatalf("n%d has no claim %d of %s", n, seq, id)
}

// waiting returns what is on its way, all or from one node to another.
func (s *script) waiting(args []string) []flight {
	var found []flight
	for _, f := range s.flight {
		if len(args) == 0 || f.from == s.node(args[0]) && f.to == s.node(args[1]) {
			found = append(found, f)
		}
	}
	return found
}

// deliver delivers what is on its way, or loses it. Without arguments, what is
// sent in consequence is delivered as well, until all is quiet.
func (s *script) deliver(args []string, arrives bool) {
	const most = 10000
	for range most {
		i := slices.IndexFunc(s.flight, func(f flight) bool {
			return (!arrives || !s.nodes[f.to].frozen) && (len(args) == 0 || f.from == s.node(args[0]) && f.to == s.node(args[1]))
		})
		if i < 0 {
			return
		}
		f := s.flight[i]
		s.flight = slices.Delete(s.flight, i, i+1)
		if arrives {
			s.arrive(f)
		}
	}
	s.t.Fatalf("no end of messages after %d", most)
}

func (s *script) arrive(f flight) {
	if s.nodes[f.to].gone {
		return
	}
	s.now = s.now.add(time.Millisecond)
	msg, err := ParseMessage(f.b)
	if err != nil {
		s.t.Fatal(err)
	}
	s.input(f.to, func(m *Machine) { m.Receive(s.now, msg) })
}

func (s *script) tick() {
	s.now = s.now.add(time.Second)
	for _, n := range s.all() {
		if !s.nodes[n].frozen {
			s.input(n, func(m *Machine) { m.Tick(s.now) })
		}
	}
	s.brief = true
	s.deliver(nil, true)
	s.brief = false
}

func (s *script) view(n, o Node, sees bool) {
	s.input(n, func(m *Machine) {
		if sees {
			m.NodeUp(s.now, o, s.nodes[o].name, true)
		} else {
			m.NodeDown(s.now, o)
		}
	})
}

func (s *script) split(args []string) {
	for _, a := range args {
		s.cut = append(s.cut, s.node(a))
	}
	s.flight = nil
	for _, n := range s.all() {
		for _, o := range s.all() {
			if slices.Contains(s.cut, n) != slices.Contains(s.cut, o) {
				s.view(n, o, false)
			}
		}
	}
}

func (s *script) heal() {
	was := s.cut
	s.cut = nil
	for _, n := range s.all() {
		for _, o := range s.all() {
			if slices.Contains(was, n) != slices.Contains(was, o) {
				s.view(n, o, true)
			}
		}
	}
}

func (s *script) crash(n Node) {
	s.nodes[n].gone = true
	for _, o := range s.all() {
		s.view(o, n, false)
	}
}

func (s *script) holder(id string) {
	for _, n := range s.all() {
		if h, ok := s.nodes[n].m.Holder(id); ok {
			s.say("n%d says %v holds with token %s", n, h.Claim, s.log.token(id, h.Token))
		} else {
			s.say("n%d says nobody holds", n)
		}
	}
}
