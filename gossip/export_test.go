package gossip

import (
	"context"
	"crypto/sha256"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"highlander/internal/claims"
	"highlander/internal/nodename"
)

// JoinTuned is Join with other settings of memberlist.
func JoinTuned(ctx context.Context, cfg Config, tune func(*memberlist.Config)) (*Cluster, error) {
	cfg.tune = tune
	return Join(ctx, cfg)
}

// WithPatience returns cfg with another time for guards to testify, and for nodes
// in doubt to answer.
func (cfg Config) WithPatience(d time.Duration) Config {
	cfg.patience = d
	return cfg
}

// Meeting returns cfg for a node that is to meet others: it does not take itself for
// the first one because they are slow.
func (cfg Config) Meeting() Config {
	cfg.settle = time.Hour
	return cfg
}

// WithClock returns cfg with another clock by which leases end.
func (cfg Config) WithClock(up func() time.Duration) Config {
	cfg.up = up
	return cfg
}

// Crash ends c as SIGKILL ends a process: the sockets close, nothing is said.
func (c *Cluster) Crash() {
	c.closeOnce.Do(func() {
		c.transport.Shutdown()
		c.joiner.stop()
		c.shutdown()
	})
}

// Membership returns the members and a channel that is closed when they change.
func (c *Cluster) Membership() ([]Member, <-chan struct{}) { return c.agent.membership() }

// AwaitWatch waits until c has had a tripwire's stream to a node. It returns
// false if c does not watch that node, or ctx ends.
func (c *Cluster) AwaitWatch(ctx context.Context, name string) bool {
	var w *watcher
	c.agent.do(func(claims.Instant) { w = c.traps.watchers[name] })
	if w == nil {
		return false
	}
	select {
	case <-w.held:
		return true
	case <-ctx.Done():
		return false
	}
}

// Receive is what memberlist calls with a message.
func (c *Cluster) Receive(b []byte) { c.agent.NotifyMsg(b) }

// KnownWaiting returns how many claims for id that wait this node knows of.
func (c *Cluster) KnownWaiting(id string) (count int) {
	waits := func(claim reflect.Value) {
		if claim.FieldByName("Token").Uint() == 0 {
			count++
		}
	}
	c.agent.do(func(claims.Instant) {
		machine := reflect.ValueOf(c.agent.machine).Elem()
		record := machine.FieldByName("ids").MapIndex(reflect.ValueOf(id))
		if !record.IsValid() {
			return
		}
		for _, l := range c.agent.leases {
			if l.id == id && l.phase == leaseWaiting {
				count++
			}
		}
		links := record.Elem().FieldByName("links")
		for i := range links.Len() {
			peer := machine.FieldByName("peers").Index(i)
			if state := links.Index(i).FieldByName("state"); !state.IsNil() && !peer.IsNil() && peer.Elem().FieldByName("inView").Bool() {
				known := state.Elem().FieldByName("Claims")
				for k := range known.Len() {
					waits(known.Index(k))
				}
			}
		}
	})
	return count
}

// The parts of a message, for those who make bad ones.
const (
	KindClaims   = kindClaims
	KindPacket   = kindPacket
	WordGoodbye  = wordGoodbye
	WordDeparted = wordDeparted
	WordAnswer   = wordAnswer
	TripwireByte = tripwireByte
)

// Word makes a word.
func Word(kind byte, from, to, number, about uint64) []byte {
	return word{kind, claims.Node(from), claims.Node(to), number, claims.Node(about)}.append(nil)
}

// Incarnation returns the random part of a node's name.
func Incarnation(node string) uint64 {
	_, incarnation, err := nodename.Split(node)
	if err != nil {
		panic(err)
	}
	return incarnation
}

// Question returns what a tripwire sends.
func Question(label, name string) []byte { return question(label, name) }

// KnownToMemberlist returns how many nodes memberlist remembers, the dead ones
// included.
func (c *Cluster) KnownToMemberlist() int {
	list := reflect.ValueOf(c.list).Elem()
	lock := (*sync.RWMutex)(list.FieldByName("nodeLock").Addr().UnsafePointer())
	lock.RLock()
	defer lock.RUnlock()
	return list.FieldByName("nodeMap").Len()
}

// IsAlive says whether memberlist takes a node for alive.
func (c *Cluster) IsAlive(name string) bool {
	return slices.ContainsFunc(c.list.Members(), func(n *memberlist.Node) bool { return n.Name == name })
}

// HasNewNodes says whether there are nodes that c tells again who is gone.
func (c *Cluster) HasNewNodes() (has bool) {
	c.agent.do(func(claims.Instant) {
		for _, n := range c.agent.nodes {
			has = has || n.new > 0
		}
	})
	return has
}

// HLC returns the clock of c.
func (c *Cluster) HLC() (hlc claims.HLC) {
	c.agent.do(func(claims.Instant) { hlc = c.agent.machine.HLC() })
	return hlc
}

// Advance sets the clock of c forward, as one that is ahead does.
func (c *Cluster) Advance(by time.Duration) {
	c.agent.do(func(now claims.Instant) { c.agent.machine.MergeHLC(now, claims.HLC(now.Wall.Add(by).UnixMicro()<<8)) })
}

// SettleTime is how long the first node looks for others.
const SettleTime = settleTime

// VoterMeta is memberlist's meta of a voter in available mode.
var VoterMeta = string(nodeMeta{}.append(nil))

// ReadKeyFile returns the keys in a file.
func ReadKeyFile(path string) ([][]byte, error) { return readKeyFile(path) }

// Fingerprint is what the log says of a key.
func Fingerprint(key []byte) string { return fingerprint(key) }

// Keys returns the keys of c, and a channel that is closed when they change.
func (c *Cluster) Keys() ([][]byte, <-chan struct{}) { return c.keys.current() }

// Forge makes a death certificate's frame; without keys it is not encrypted.
func Forge(label, node string, secret [32]byte, keys ...[]byte) []byte {
	return certificate{label, claims.Node(Incarnation(node)), secret}.frame(keys)
}

// Secret is what c's death certificate proves to know.
func (c *Cluster) Secret() [32]byte { return c.secret }

// CertificateByte is the first byte of a stream with a death certificate.
const CertificateByte = certificateByte

// MetaWith is memberlist's meta of a voter with that secret.
func MetaWith(secret [32]byte) string {
	return string(nodeMeta{certificate: sha256.Sum256(secret[:])}.append(nil))
}

// Reencode reads the body of a death certificate and makes a frame of it, if it is
// one.
func Reencode(body []byte, label string) (frame []byte, ok bool) {
	d, err := openCertificate(body, label, nil)
	return d.frame(nil), err == nil
}
