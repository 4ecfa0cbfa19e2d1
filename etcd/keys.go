package etcd

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"highlander"
)

// The keys below the prefix of a cluster. An id is escaped as in the path of a
// URL, so that none of it is a slash.
//
//	PREFIX/held/ID                 who holds the id, or held it last
//	PREFIX/claim/LEASE/ID/NUMBER   a call of Acquire that waits for the id or holds it
//	PREFIX/node/LEASE              a process; the only key that is attached to its lease
//
// A claim counts while the key of its process is there. Attached to the lease
// itself, a thousand claims would be dear where etcd checks permissions: it looks
// at all keys of a lease whenever one is added.
type keys struct{ prefix string }

func (k keys) held(id string) string { return k.prefix + "/held/" + url.PathEscape(id) }
func (k keys) allHeld() string       { return k.prefix + "/held/" }
func (k keys) allClaims() string     { return k.prefix + "/claim/" }
func (k keys) allNodes() string      { return k.prefix + "/node/" }
func (k keys) all() string           { return k.prefix + "/" }

func (k keys) claims(lease clientv3.LeaseID) string {
	return fmt.Sprintf("%s/claim/%016x/", k.prefix, uint64(lease))
}

func (k keys) claim(at claimRef) string {
	return k.claims(at.lease) + url.PathEscape(at.id) + "/" + strconv.FormatUint(at.number, 10)
}

func (k keys) node(lease clientv3.LeaseID) string {
	return fmt.Sprintf("%s/node/%016x", k.prefix, uint64(lease))
}

// claimRef is a claim: one call of Acquire.
type claimRef struct {
	lease  clientv3.LeaseID
	id     string
	number uint64 // unique in its process
}

// parseHeld returns the id that the record under key is of.
func (k keys) parseHeld(key string) (id string, ok bool) {
	escaped, ok := strings.CutPrefix(key, k.allHeld())
	if !ok {
		return "", false
	}
	id, err := url.PathUnescape(escaped)
	return id, err == nil
}

// parseClaim returns the claim under key.
func (k keys) parseClaim(key string) (at claimRef, ok bool) {
	rest, ok := strings.CutPrefix(key, k.allClaims())
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 3 {
		return at, false
	}
	lease, err1 := strconv.ParseUint(parts[0], 16, 64)
	id, err2 := url.PathUnescape(parts[1])
	number, err3 := strconv.ParseUint(parts[2], 10, 64)
	return claimRef{clientv3.LeaseID(lease), id, number}, err1 == nil && err2 == nil && err3 == nil
}

// parseNode returns the lease of the process whose key it is.
func (k keys) parseNode(key string) (lease clientv3.LeaseID, ok bool) {
	rest, ok := strings.CutPrefix(key, k.allNodes())
	if !ok {
		return 0, false
	}
	id, err := strconv.ParseUint(rest, 16, 64)
	return clientv3.LeaseID(id), err == nil
}

type heldState string

const (
	stateHeld     heldState = "held"
	stateReleased heldState = "released"
)

// record is the value under PREFIX/held/ID. It outlives the lease of its holder,
// so that others know what to wait for when the holder's claim is gone.
type record struct {
	State heldState `json:"state"`

	// Token is the fencing token. Zero: the revision of the key, which is that of
	// the transaction in which the lease was won.
	Token uint64 `json:"token,omitempty"`

	Node   string    `json:"node"`
	Lease  string    `json:"lease"`  // of the holder's claim, hexadecimal
	Number uint64    `json:"number"` // of the holder's claim
	TTL    string    `json:"ttl"`    // of that lease
	Meta   string    `json:"meta,omitempty"`
	Since  time.Time `json:"since"`

	at       claimRef      // Lease and Number
	ttl      time.Duration // TTL
	revision int64         // of the key
}

func newRecord(at claimRef, ttl time.Duration) record {
	return record{State: stateHeld, Lease: fmt.Sprintf("%016x", uint64(at.lease)), Number: at.number, TTL: ttl.String(), at: at, ttl: ttl}
}

// value returns what is written under the key.
func (r record) value() string {
	raw, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings, numbers and a time: it cannot fail
	}
	return string(raw)
}

// released returns the mark that the holder leaves when its child has stopped.
func (r record) released() record {
	r.State = stateReleased
	return r
}

// holder returns what Lookup says of the record.
func (r record) holder() highlander.Holder {
	return highlander.Holder{ID: r.at.id, Node: r.Node, Meta: r.Meta, Token: r.Token, Since: r.Since}
}

// of says whether the record says that at holds the id.
func (r record) of(at claimRef) bool { return r.State == stateHeld && r.at == at }

// parseBid reads what is under the key of a claim: the record that it writes, or
// another for it, when it wins.
func parseBid(at claimRef, value []byte) (record, error) {
	var r record
	if err := json.Unmarshal(value, &r); err != nil {
		return r, err
	}
	ttl, err := time.ParseDuration(r.TTL)
	if err != nil {
		return r, fmt.Errorf("ttl: %w", err)
	}
	bid := newRecord(at, ttl)
	bid.Node, bid.Meta = r.Node, r.Meta
	return bid, nil
}

func parseRecord(id string, kv *mvccpb.KeyValue) (record, error) {
	var r record
	if err := json.Unmarshal(kv.Value, &r); err != nil {
		return r, err
	}
	lease, err := strconv.ParseUint(r.Lease, 16, 64)
	if err != nil {
		return r, fmt.Errorf("lease: %w", err)
	}
	if r.ttl, err = time.ParseDuration(r.TTL); err != nil {
		return r, fmt.Errorf("ttl: %w", err)
	}
	if r.State != stateHeld && r.State != stateReleased {
		return r, fmt.Errorf("state %q", r.State)
	}
	if r.Token == 0 {
		r.Token = uint64(kv.ModRevision)
	}
	r.at, r.revision = claimRef{clientv3.LeaseID(lease), id, r.Number}, kv.ModRevision
	return r, nil
}

// node is the value under PREFIX/node/LEASE.
type node struct {
	Name  string    `json:"name"`
	Since time.Time `json:"since"`
	TTL   string    `json:"ttl"`
}
