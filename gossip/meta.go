package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// nodeMeta is what a node tells about itself when it joins: memberlist's meta
// of it. It never changes.
type nodeMeta struct {
	observer    bool     // then there are no rules, as it votes on nothing
	guarded     bool     // see Config.Guarded
	rules       rules    // of a voter
	certificate [32]byte // SHA-256 of what proves that this incarnation is dead; zeros: there is none
}

// The encoding of a nodeMeta: version, flags, quorum and voters in two bytes
// each, the TTL in eight (nanoseconds), the hash of the certificate.
const (
	metaVersion  = 1
	metaObserver = 1 // flags
	metaGuarded  = 2
	metaLen      = 1 + 1 + 2 + 2 + 8 + 32
)

func (m nodeMeta) append(b []byte) []byte {
	var flags byte
	if m.observer {
		flags |= metaObserver
	}
	if m.guarded {
		flags |= metaGuarded
	}
	b = append(b, metaVersion, flags)
	b = binary.BigEndian.AppendUint16(b, uint16(m.rules.quorum))
	b = binary.BigEndian.AppendUint16(b, uint16(m.rules.voters))
	b = binary.BigEndian.AppendUint64(b, uint64(m.rules.ttl))
	return append(b, m.certificate[:]...)
}

// parseMeta is the reverse of append: a meta has one encoding only.
func parseMeta(b []byte) (nodeMeta, error) {
	switch {
	case len(b) == 0:
		return nodeMeta{}, errors.New("meta is empty")
	case b[0] != metaVersion:
		return nodeMeta{}, fmt.Errorf("meta of version %d, this is version %d", b[0], metaVersion)
	case len(b) != metaLen:
		return nodeMeta{}, fmt.Errorf("meta has %d bytes, not %d", len(b), metaLen)
	case b[1]&^(metaObserver|metaGuarded) != 0:
		return nodeMeta{}, fmt.Errorf("meta has unknown flags %#x", b[1])
	}
	m := nodeMeta{
		observer: b[1]&metaObserver != 0,
		guarded:  b[1]&metaGuarded != 0,
		rules: rules{
			quorum: int(binary.BigEndian.Uint16(b[2:])),
			voters: int(binary.BigEndian.Uint16(b[4:])),
			ttl:    time.Duration(binary.BigEndian.Uint64(b[6:])),
		},
	}
	copy(m.certificate[:], b[14:])
	if m.rules != (rules{}) && (m.observer || m.rules.quorum == 0 || m.rules.voters == 0 || m.rules.ttl <= 0) {
		return nodeMeta{}, fmt.Errorf("meta has rules that nobody can have: observer %t, quorum %d of %d, TTL %d ns",
			m.observer, m.rules.quorum, m.rules.voters, m.rules.ttl)
	}
	return m, nil
}

// meta returns what a node that is configured like this tells about itself.
func (cfg Config) meta() nodeMeta {
	if cfg.Observer {
		return nodeMeta{observer: true}
	}
	return nodeMeta{guarded: cfg.Guarded, rules: cfg.rules()}
}

// agree returns an error if the node called name must not take part in the same
// cluster as this one. Observers may take part in any.
func (m nodeMeta) agree(name string, other nodeMeta) error {
	if m.observer || other.observer || m.rules == other.rules {
		return nil
	}
	return fmt.Errorf("node %s runs %v; this one runs %v", name, other.rules, m.rules)
}
