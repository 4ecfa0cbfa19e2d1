package gossip

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"time"

	"highlander/internal/claims"
)

// A death certificate proves that one start of a node is dead, and that nothing
// of what it ran is left. The node makes it, and leaves it to somebody who
// outlives it and gives it out only then: the guard of highlander run. It is the
// secret behind a hash that all others know from the node's meta. So nobody can
// forge it, not even another member; it says nothing about any other start; and
// who repeats it says what is known already.
//
// On the wire it is certificateByte, the length of the rest in two bytes, and
// the rest: version, label behind its length, incarnation and secret. Where the
// cluster has keys, the rest is encrypted with the first one. The answer is one
// byte, and none if the certificate is not good.
const (
	certificateByte  = 'd' // as tripwireByte
	certificateHeard = 'h'

	certificateVersion = 1
	maxCertificate     = 512 // bytes, encrypted
	certificateTimeout = 2 * time.Second
)

// certificate is what a death certificate says.
type certificate struct {
	label  string
	node   claims.Node
	secret [32]byte
}

func newSecret() (secret [32]byte) {
	rand.Read(secret[:])
	return secret
}

// Certificate returns this node's death certificate, for somebody who outlives
// this process: a frame to be written to a TCP stream to each of peers, host:port,
// which are all voters in view but this one. Each confirms it with one byte; one
// that hangs up instead may do so later. From then on this node's leases are free,
// and nobody listens to it any more: the frame must not be sent before the
// process has ended, and all that its leases protect. changed is closed when the
// frame or peers are others; there is a frame for voters only.
func (c *Cluster) Certificate() (frame []byte, peers []string, changed <-chan struct{}) {
	members, changed := c.agent.membership()
	for _, m := range members {
		if !m.Self && !m.Observer {
			peers = append(peers, m.Addr)
		}
	}
	if c.cfg.Observer {
		return nil, nil, changed
	}
	keys, _ := c.keys.current() // changed is closed when they are: see agent.run
	return certificate{c.cfg.Label, c.agent.self, c.secret}.frame(keys), peers, changed
}

// frame returns what goes over the wire.
func (d certificate) frame(keys [][]byte) []byte {
	body := append([]byte{certificateVersion, byte(len(d.label))}, d.label...)
	body = binary.BigEndian.AppendUint64(body, uint64(d.node))
	body = append(body, d.secret[:]...)
	if len(keys) > 0 {
		body = certificateCipher(keys[0]).Seal(nil, nil, body, certificateData(d.label))
	}
	frame := binary.BigEndian.AppendUint16([]byte{certificateByte}, uint16(len(body)))
	return append(frame, body...)
}

// certificateCipher encrypts as memberlist does, but for certificateData, which
// keeps the two from being taken for each other.
func certificateCipher(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // keys are checked before they are used
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // AES has the block size that GCM needs
	}
	return aead
}

func certificateData(label string) []byte { return append([]byte{certificateByte}, label...) }

// openCertificate is the reverse of frame, but for the header. There is one
// encoding of a certificate only.
func openCertificate(body []byte, label string, keys [][]byte) (certificate, error) {
	if len(keys) > 0 {
		var err error
		if body, err = decryptCertificate(body, label, keys); err != nil {
			return certificate{}, err
		}
	}
	if len(body) < 2 || body[0] != certificateVersion {
		return certificate{}, errors.New("it is not of a version that is known here")
	}
	rest := body[2:]
	if len(rest) != int(body[1])+8+32 {
		return certificate{}, fmt.Errorf("it has %d bytes, which is not its length", len(body))
	}
	d := certificate{label: string(rest[:body[1]])}
	rest = rest[body[1]:]
	d.node = claims.Node(binary.BigEndian.Uint64(rest))
	copy(d.secret[:], rest[8:])
	if d.label != label {
		return certificate{}, fmt.Errorf("it is for the cluster %q", d.label)
	}
	return d, nil
}

func decryptCertificate(body []byte, label string, keys [][]byte) ([]byte, error) {
	for _, key := range keys {
		if plain, err := certificateCipher(key).Open(nil, nil, body, certificateData(label)); err == nil {
			return plain, nil
		}
	}
	return nil, errors.New("no key opens it")
}

// takeCertificate serves a stream whose first byte was certificateByte.
func (c *Cluster) takeCertificate(conn net.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(certificateTimeout))
	if err := c.checkCertificate(conn); err != nil {
		c.dropped.count("death certificate: " + err.Error())
		return
	}
	conn.Write([]byte{certificateHeard})
}

// checkCertificate returns nil once the node that the certificate is about is
// known to be dead.
func (c *Cluster) checkCertificate(r io.Reader) error {
	var header [2]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return fmt.Errorf("read its length: %w", err)
	}
	length := binary.BigEndian.Uint16(header[:])
	if length > maxCertificate {
		return fmt.Errorf("it has %d bytes; at most %d are allowed", length, maxCertificate)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return fmt.Errorf("read it: %w", err)
	}
	keys, _ := c.keys.current()
	d, err := openCertificate(body, c.cfg.Label, keys)
	if err != nil {
		return err
	}
	if !c.agent.do(func(now claims.Instant) { err = c.agent.certified(now, d) }) {
		return errors.New("this node is closing")
	}
	return err
}

// mortal is what is remembered of one start of another node, to know its death
// certificate by, and then that it is dead.
type mortal struct {
	name string
	hash [32]byte // of the secret; zeros: it has none
	dead bool
}

const maxMortals = 4096

// meet remembers a node that has joined. The first hash counts: a node does not
// change its secret.
func (a *agent) meet(id claims.Node, name string, hash [32]byte) *mortal {
	if m := a.mortals[id]; m != nil {
		return m
	}
	if len(a.mortals) >= maxMortals {
		maps.DeleteFunc(a.mortals, func(id claims.Node, _ *mortal) bool { return a.nodes[id] == nil })
	}
	m := &mortal{name: name, hash: hash}
	a.mortals[id] = m
	return m
}

// certified takes a certificate, and returns an error unless it is good.
func (a *agent) certified(now claims.Instant, d certificate) error {
	m := a.mortals[d.node]
	hash := sha256.Sum256(d.secret[:])
	switch {
	case m == nil:
		return fmt.Errorf("node %016x is not known here, or not yet", uint64(d.node))
	case subtle.ConstantTimeCompare(hash[:], m.hash[:]) != 1:
		return fmt.Errorf("it is not from node %s, whose name is on it", m.name)
	case m.dead: // told again
		return nil
	}
	m.dead = true
	a.bury(now, d.node, m.name)
	return nil
}

// bury takes a node that is dead out of the view for good. Other voters have been
// told as this one was; observers hear of it from here.
func (a *agent) bury(now claims.Instant, id claims.Node, name string) {
	a.log.Info("a node is dead, and all that it ran is gone", "peer", name, "proof", "death certificate")
	a.machine.Dead(now, id)
	delete(a.left, id)
	n := a.nodes[id]
	if n == nil {
		return
	}
	phase := n.phase
	n.phase = nodeDead
	for _, other := range a.nodes {
		if other.meta.observer && other.inView() {
			a.tell(other, word{kind: wordDeparted, about: id})
		}
	}
	switch phase {
	case nodeDoubted: // no longer on memberlist's list
		a.remove(now, n)
	case nodeInView:
		a.viewChanged()
	}
}
