package kubernetes

import (
	"crypto/sha256"
	"encoding/base32"
	"math"
	"strconv"
	"strings"
	"time"

	coordination "k8s.io/api/coordination/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What is in a Lease object beside its spec. The label is what a node watches.
const (
	managedBy = "app.kubernetes.io/managed-by"
	manager   = "highlander"
	selector  = managedBy + "=" + manager

	idKey       = "highlander/id"
	metaKey     = "highlander/meta"
	tokenKey    = "highlander/token"    // leaseTransitions has no room for a large one
	releasedKey = "highlander/released" // the token whose holder said that its child has stopped
	settlingKey = "highlander/settling" // the object is new, and its holder does not run anything yet
)

// object is a Lease object of the server. A lease, in this package, is what
// highlander calls so.
type object = coordination.Lease

const (
	maxLabel = 63
	hashLen  = 16
	maxInt32 = math.MaxInt32 // what leaseTransitions and leaseDurationSeconds have room for
)

var hashEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567")

// objectName returns the name of the Lease object of an id: a DNS label that says
// what it is, and a hash that tells it from all others.
func objectName(id string) string {
	sum := sha256.Sum256([]byte(id))
	hash := hashEncoding.EncodeToString(sum[:hashLen*5/8])
	slug := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		case 'A' <= r && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, id)
	slug = strings.Trim(slug[:min(len(slug), maxLabel-hashLen-1)], "-")
	if slug == "" {
		return hash
	}
	return slug + "-" + hash
}

// record is what a Lease object says.
type record struct {
	id       string // empty: it was removed by hand
	holder   string // empty: nobody
	meta     string
	token    uint64 // of the last lease
	duration time.Duration
	acquired time.Time
	renewed  time.Time
	released bool // the holder has said that its child has stopped
	settling bool
}

func readRecord(l *object) record {
	r := record{
		id:       l.Annotations[idKey],
		meta:     l.Annotations[metaKey],
		holder:   value(l.Spec.HolderIdentity),
		duration: time.Duration(value(l.Spec.LeaseDurationSeconds)) * time.Second,
		acquired: value(l.Spec.AcquireTime).Time,
		renewed:  value(l.Spec.RenewTime).Time,
		settling: l.Annotations[settlingKey] != "",
	}
	// Other electors know of leaseTransitions alone.
	r.token = max(uint64(max(0, value(l.Spec.LeaseTransitions))), readToken(l.Annotations[tokenKey]))
	r.released = r.holder == "" && r.token > 0 && readToken(l.Annotations[releasedKey]) == r.token
	return r
}

// readToken returns zero for what is no token. A token that leaves no room for
// larger ones is none.
func readToken(text string) uint64 {
	token, err := strconv.ParseUint(text, 10, 63)
	if err != nil || token == math.MaxInt64 {
		return 0
	}
	return token
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// isForeign reports whether an object that has the name which belongs to id is of
// somebody else. One without an id is ours if it has our label, which a hand may
// have left, or if nobody holds it.
func isForeign(o *object, id string) bool {
	if has := o.Annotations[idKey]; has != "" {
		return has != id
	}
	return o.Labels[managedBy] != manager && value(o.Spec.HolderIdentity) != ""
}

// claim is a lease of this node, as it is written into an object.
type claim struct {
	id, node, meta string
	token          uint64
	ttl            time.Duration
	since          time.Time
}

// holds writes into l that the claim holds, renewed now.
func (c claim) holds(l *object, now time.Time) {
	c.write(l, now)
	l.Spec.HolderIdentity = &c.node
	delete(l.Annotations, releasedKey)
	delete(l.Annotations, settlingKey)
	if c.meta == "" {
		delete(l.Annotations, metaKey)
	} else {
		l.Annotations[metaKey] = c.meta
	}
}

// settles writes into l that the claim will hold if nobody objects.
func (c claim) settles(l *object, now time.Time) {
	c.holds(l, now)
	l.Annotations[settlingKey] = "true"
}

// isReleased writes into l that the child of the claim has stopped.
func (c claim) isReleased(l *object, now time.Time) {
	c.write(l, now)
	l.Spec.HolderIdentity = new(string)
	l.Annotations[releasedKey] = strconv.FormatUint(c.token, 10)
	delete(l.Annotations, settlingKey)
	delete(l.Annotations, metaKey)
}

func (c claim) write(l *object, now time.Time) {
	if l.Labels == nil {
		l.Labels = map[string]string{}
	}
	if l.Annotations == nil {
		l.Annotations = map[string]string{}
	}
	l.Labels[managedBy] = manager
	l.Annotations[idKey] = c.id
	l.Annotations[tokenKey] = strconv.FormatUint(c.token, 10)
	// Others see by renewTime that it was renewed, so it has to change.
	renewed := meta.NewMicroTime(now.Truncate(time.Microsecond))
	if last := l.Spec.RenewTime; last != nil && last.Time.Equal(renewed.Time) {
		renewed = meta.NewMicroTime(renewed.Add(time.Microsecond))
	}
	l.Spec.RenewTime = &renewed
	acquired := meta.NewMicroTime(c.since)
	l.Spec.AcquireTime = &acquired
	l.Spec.LeaseDurationSeconds = ptr(int32(c.ttl / time.Second))
	l.Spec.LeaseTransitions = ptr(int32(min(c.token, maxInt32)))
}

func ptr[T any](v T) *T { return &v }

// isHeldBy reports whether an object says that the claim holds, or settles.
func (c claim) isHeldBy(r record) bool { return r.holder == c.node && r.token == c.token }

// mayTakeBack reports whether the claim, whose lease has not run out, may be
// written over what an object says that does not name it: nobody else can have
// been granted the id meanwhile, so this is what a hand has left of the object, or
// what others have put in the place of one that was deleted.
func (c claim) mayTakeBack(r record) bool {
	return r.settling || r.token < c.token || r.holder == "" && r.token == c.token
}
