package gossip_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"highlander/gossip"
)

// testify presents a frame to a node, and returns whether it is confirmed.
func testify(t testing.TB, to *gossip.Cluster, frame []byte) bool {
	t.Helper()
	conn, err := net.Dial("tcp", to.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	conn.Write(frame)
	conn.(*net.TCPConn).CloseWrite()
	var answer [2]byte
	n, err := conn.Read(answer[:])
	if e, ok := err.(net.Error); ok && e.Timeout() {
		t.Fatalf("%s neither confirms the certificate nor hangs up", to.Node())
	}
	return n == 1 && answer[0] == 'h'
}

// Of two nodes without a failure detector, one that is silent is waited for for
// ever. Its death certificate is all that frees what it holds.
func TestCertificateFreesWhatItsNodeHolds(t *testing.T) {
	t.Parallel()
	w, nodes := blindCluster(t, 2)
	s := newStage(t, "id")
	s.wrap(nodes[0])
	s.runsOn(nodes[0])
	s.wrap(nodes[1])
	frame, peers, _ := nodes[0].Certificate()
	if !slices.Equal(peers, []string{nodes[1].Addr()}) {
		t.Errorf("the certificate is for %q", peers)
	}
	w.cut(nodes[:1], nodes[1:])
	if !testify(t, nodes[1], frame) {
		t.Fatal("the certificate is not confirmed")
	}
	w.see(1, nodes[1])
	s.await("it runs on the other node", func() bool { return s.running[nodes[1].Node()] })
	w.awaitLog("a node is dead, and all that it ran is gone", 1)

	// Dead is dead, whoever says what.
	id := func(c *gossip.Cluster) uint64 { return gossip.Incarnation(c.Node()) }
	w.heal()
	for number := range uint64(100) {
		nodes[1].Receive(gossip.Word(gossip.WordAnswer, id(nodes[0]), id(nodes[1]), number, 0))
	}
	if !testify(t, nodes[1], frame) {
		t.Error("told again, it does not confirm")
	}
	passRound(t, nodes[1:])
	w.see(1, nodes[1])
	w.dropsNothingFor("death certificate")
}

// What looks like a certificate and is none.
func TestForgedCertificateFreesNothing(t *testing.T) {
	t.Parallel()
	key, second, foreign := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 16), bytes.Repeat([]byte{3}, 32)
	for name, keys := range map[string][][]byte{"plain": nil, "encrypted": {key, second}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.config.Keys = keys
			nodes := w.cluster(3)
			l := acquire(t, nodes[0], "id")
			holder, judge, other := nodes[0], nodes[1], nodes[2]
			seal := func(label, node string, secret [32]byte) []byte { return gossip.Forge(label, node, secret, keys...) }
			good := seal(gossip.DefaultLabel, holder.Node(), holder.Secret())
			overhead := 0
			if keys != nil {
				overhead = 12 + 16 // nonce and tag
			}
			plain := gossip.Forge(gossip.DefaultLabel, holder.Node(), holder.Secret())
			behind := len(plain) - 8 - 32 // the header, version and label
			type forgery struct {
				what  string
				frame []byte
			}
			forgeries := []forgery{
				{"a made-up secret", seal(gossip.DefaultLabel, holder.Node(), [32]byte{1})},
				{"no secret", seal(gossip.DefaultLabel, holder.Node(), [32]byte{})},
				{"another member's secret", seal(gossip.DefaultLabel, holder.Node(), other.Secret())},
				{"the secret under another incarnation", seal(gossip.DefaultLabel, "x#0000000000000001", holder.Secret())},
				{"the node's own, of which only others can know", seal(gossip.DefaultLabel, judge.Node(), judge.Secret())},
				{"another cluster's", seal("green", holder.Node(), holder.Secret())},
				{"another key", gossip.Forge(gossip.DefaultLabel, holder.Node(), holder.Secret(), foreign)},
				{"a byte changed", append(good[:len(good)-1:len(good)-1], good[len(good)-1]^1)},
				{"the wrong length", append([]byte{good[0], good[1], good[2] + 1}, append(slices.Clone(good[3:]), 0)...)},
				{"huge", append([]byte{gossip.CertificateByte, 0xff, 0xff}, make([]byte, 0xffff)...)},
				{"empty", []byte{gossip.CertificateByte, 0, 0}},
			}
			if keys != nil {
				forgeries = append(forgeries, forgery{"not encrypted", plain})
			} else {
				relabelled := slices.Clone(plain)
				relabelled[behind-1] ^= 1
				version := slices.Clone(plain)
				version[3]++
				forgeries = append(forgeries, forgery{"another version", version}, forgery{"another label of the same length", relabelled})
			}
			for cut := range good[1:] {
				forgeries = append(forgeries, forgery{fmt.Sprintf("the first %d of %d bytes", cut+1, len(good)), good[:cut+1]})
				if cut >= 2 && cut < len(good)-1 { // and the length fits
					short := slices.Clone(good[:cut+1])
					binary.BigEndian.PutUint16(short[1:], uint16(cut-2))
					forgeries = append(forgeries, forgery{fmt.Sprintf("shortened to %d bytes", cut+1), short})
				}
			}
			for _, f := range forgeries {
				w.drops(judge, f.what, func() {
					if testify(t, judge, f.frame) {
						t.Errorf("%s: it is confirmed", f.what)
					}
				})
			}
			if dead := w.logged("is dead"); len(dead) > 0 {
				t.Fatalf("a node is taken for dead: %s", dead)
			}
			w.unharmed(nodes, l)

			// The real one, so that this test shows something.
			if want := len(plain) + overhead; len(good) != want {
				t.Errorf("a certificate has %d bytes, not %d", len(good), want)
			}
			if !testify(t, judge, good) {
				t.Error("the real one is not confirmed")
			}
			w.seeNot(judge, holder)
		})
	}
}

// A certificate is good for one start of one node, and once.
func TestReplayedCertificateFreesNothing(t *testing.T) {
	t.Parallel()
	w, nodes := blindCluster(t, 3)
	first, judge, absent := nodes[0], nodes[1], nodes[2]
	frame, _, _ := first.Certificate()
	absent.Crash()
	first.Crash()
	if !testify(t, judge, frame) {
		t.Fatal("the certificate is not confirmed")
	}
	w.see(1, judge)

	again := w.join("n00", judge) // the name is back
	late := w.join("n03", judge, again)
	w.see(3, judge, again, late)
	l := acquire(t, again, "id")
	for range 3 {
		if !testify(t, judge, frame) {
			t.Error("the node that knows it does not confirm")
		}
		for _, c := range []*gossip.Cluster{again, late} {
			testify(t, c, frame) // it may know the first one from memberlist's list, which is slow to bury
		}
	}
	w.see(3, judge, again, late)
	passRound(t, []*gossip.Cluster{judge, again, late})
	held(t, l)
	if dead := w.logged("is dead"); slices.ContainsFunc(dead, func(line string) bool { return !bytes.Contains([]byte(line), []byte(first.Node())) }) {
		t.Errorf("somebody else is taken for dead: %s", dead)
	}

	stranger := newWorld(t).join("n00")
	if testify(t, stranger, frame) {
		t.Error("it is confirmed by a node that never knew whose it is")
	}
}

// memberlist believes anybody about a node. Another member's lies do not replace
// the hash by which that node is known.
func TestFirstHashOfANodeCounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	metas := &metaRecorder{metas: map[[2]string]string{}, changed: make(chan struct{})}
	w.tune = func(mc *memberlist.Config) {
		noFailureDetector(mc)
		mc.Events = &recordedEvents{mc.Events, mc.Name, metas}
	}
	nodes := w.cluster(2)
	w.watchAll(nodes...)
	victim, judge := nodes[0], nodes[1]
	w.cut(nodes[:1], nodes[1:]) // it would contradict
	secret := [32]byte{1}
	lie := gossip.MetaWith(secret)
	ip := string(net.ParseIP(ownIP).To4())
	sendPacket(t, judge, label+"\x04"+aliveMessageOf(victim.Node(), ip, uint16(portOf(t, victim.Addr())), 100, lie))
	metas.await(t, judge, victim.Node(), lie)
	w.drops(judge, "the liar's certificate", func() {
		if testify(t, judge, gossip.Forge(gossip.DefaultLabel, victim.Node(), secret)) {
			t.Error("it is confirmed")
		}
	})
	w.see(2, judge)

	// Nor does memberlist take back who is dead.
	if !testify(t, judge, gossip.Forge(gossip.DefaultLabel, victim.Node(), victim.Secret())) {
		t.Fatal("the certificate is not confirmed")
	}
	sendPacket(t, judge, label+"\x05"+deadMessage(victim.Node(), 101))
	metas.await(t, judge, victim.Node(), "")
	sendPacket(t, judge, label+"\x04"+aliveMessageOf(victim.Node(), ip, uint16(portOf(t, victim.Addr())), 102, lie))
	metas.await(t, judge, victim.Node(), lie)
	passRound(t, nodes[1:])
	w.see(1, judge)
}

// metaRecorder knows the metas that memberlists have of live nodes.
type metaRecorder struct {
	mu      sync.Mutex
	metas   map[[2]string]string // by the node whose memberlist it is, and the other
	changed chan struct{}        // closed when that changes
}

func (r *metaRecorder) note(of, node, meta string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.metas[[2]string{of, node}] = meta
	close(r.changed)
	r.changed = make(chan struct{})
}

// await waits until memberlist has that meta of a node; none if it is not alive.
func (r *metaRecorder) await(t *testing.T, c *gossip.Cluster, node, want string) {
	t.Helper()
	timeout := time.After(patience)
	for {
		r.mu.Lock()
		meta, changed := r.metas[[2]string{c.Node(), node}], r.changed
		r.mu.Unlock()
		if meta == want {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("memberlist has the meta %q of %s, not %q", meta, node, want)
		}
	}
}

// recordedEvents are the events of one memberlist.
type recordedEvents struct {
	memberlist.EventDelegate
	of string
	r  *metaRecorder
}

func (e *recordedEvents) NotifyJoin(n *memberlist.Node) {
	e.EventDelegate.NotifyJoin(n)
	e.r.note(e.of, n.Name, string(n.Meta))
}

func (e *recordedEvents) NotifyUpdate(n *memberlist.Node) {
	e.EventDelegate.NotifyUpdate(n)
	e.r.note(e.of, n.Name, string(n.Meta))
}

func (e *recordedEvents) NotifyLeave(n *memberlist.Node) {
	e.EventDelegate.NotifyLeave(n)
	e.r.note(e.of, n.Name, "")
}

// Whoever keeps a certificate is told when there is another.
func TestCertificateIsKeptUpToDate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "keys")
	replaceFile(t, file, keyText(oldKey))
	w.config.KeyFile = file
	first := w.join("n00")
	await := func(what string, ok func(frame []byte, peers []string) bool) []byte {
		t.Helper()
		for {
			frame, peers, changed := first.Certificate()
			if ok(frame, peers) {
				return frame
			}
			receive(t, changed, what)
		}
	}
	count := func(n int) func([]byte, []string) bool {
		return func(_ []byte, peers []string) bool { return len(peers) == n }
	}
	before := await("nobody", count(0))
	second := w.join("n01", first)
	await("a peer", func(_ []byte, peers []string) bool { return slices.Equal(peers, []string{second.Addr()}) })
	observer := w.config
	observer.Observer = true
	looker, err := w.tryJoinAs(t.Context(), observer.Meeting(), bind(t, 0), "looker", first.Addr())
	if err != nil {
		t.Fatal(err)
	}
	w.see(3, first, second, looker)
	await("an observer, which is no peer", count(1))
	if frame, peers, _ := looker.Certificate(); frame != nil || peers != nil {
		t.Error("an observer has a certificate")
	}
	w.join("n02", first, second)
	await("another peer", count(2))

	_, _, changed := first.Certificate()
	_, keysChanged := second.Keys()
	replaceFile(t, file, keyText(newKey))
	receive(t, changed, "the certificate to change with the key")
	receive(t, keysChanged, "the key of the other node to change")
	after, _, _ := first.Certificate()
	if testify(t, second, before) {
		t.Error("a certificate with a key that was given up is confirmed")
	}
	if !testify(t, second, after) {
		t.Error("a certificate with the new key is not confirmed")
	}
}

// FuzzCertificate: there is one encoding of a certificate, and nothing else is
// one.
func FuzzCertificate(f *testing.F) {
	frame := gossip.Forge("highlander", "x#0000000000000001", [32]byte{2})
	f.Add(frame[3:])
	f.Add(frame[3 : len(frame)-1])
	f.Add([]byte{1})
	f.Add([]byte{1, 255})
	f.Fuzz(func(t *testing.T, body []byte) {
		if again, ok := gossip.Reencode(body, "highlander"); ok && !bytes.Equal(again[3:], body) {
			t.Errorf("%x is read as %x", body, again[3:])
		}
	})
}
