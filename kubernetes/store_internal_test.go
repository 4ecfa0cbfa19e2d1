package kubernetes

import (
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// These are about what a node concludes from what it sees, with a clock that the
// test moves.

type scene struct {
	t       *testing.T
	now     time.Duration
	version int
	store   *store
}

const (
	testTTL  = 15 * time.Second
	testName = "id-abc"
)

func newScene(t *testing.T) *scene {
	s := &scene{t: t, now: time.Hour}
	s.store = newStore(func() time.Duration { return s.now }, testTTL)
	return s
}

// object is what a claim of node with a token writes, as edit changes it.
func (s *scene) object(node string, token uint64, edit func(*object)) *object {
	s.version++
	o := &object{ObjectMeta: meta.ObjectMeta{Name: testName, ResourceVersion: strconv.Itoa(s.version)}}
	claim{id: "id", node: node, token: token, ttl: testTTL}.holds(o, time.Unix(int64(s.version), 0))
	if edit != nil {
		edit(o)
	}
	return o
}

func (s *scene) sees(o *object) { s.store.watched(o) }

func (s *scene) deleted() {
	s.version++
	s.store.observeGone(testName, strconv.Itoa(s.version))
}

// freeIn checks how long others have to wait from now on.
func (s *scene) freeIn(want time.Duration) {
	s.t.Helper()
	state, _ := s.store.look(testName)
	if got := max(0, state.free-s.now); got != want {
		s.t.Errorf("free in %v, want %v", got, want)
	}
}

func releasedBy(node string, token uint64) func(*object) {
	return func(o *object) {
		claim{id: "id", node: node, token: token, ttl: testTTL}.isReleased(o, o.Spec.RenewTime.Time)
	}
}

func TestALeaseIsFreeAfterItsDurationWithoutARenewal(t *testing.T) {
	s := newScene(t)
	s.sees(s.object("a", 1, nil))
	s.now += 10 * time.Second
	s.freeIn(5 * time.Second)

	t.Log("a renewal was received")
	s.sees(s.object("a", 1, nil))
	s.freeIn(testTTL)

	t.Log("somebody wrote a label: that is none")
	renewed, _ := s.store.look(testName)
	labelled := renewed.object.DeepCopy()
	s.version++
	labelled.ResourceVersion = strconv.Itoa(s.version)
	labelled.Labels["x"] = "y"
	s.now += 10 * time.Second
	s.sees(labelled)
	s.freeIn(5 * time.Second)
}

func TestAReleasedLeaseIsFreeAtOnce(t *testing.T) {
	s := newScene(t)
	s.sees(s.object("a", 7, nil))
	s.sees(s.object("a", 7, releasedBy("a", 7)))
	s.freeIn(0)
}

func TestAReleaseThatIsOlderThanWhatIsKnownFreesNothing(t *testing.T) {
	s := newScene(t)
	s.sees(s.object("a", 7, nil))
	s.sees(s.object("b", 6, releasedBy("b", 6))) // as from a backup
	s.freeIn(testTTL)
}

func TestAReleaseOfAnotherTokenFreesNothing(t *testing.T) {
	s := newScene(t)
	s.sees(s.object("a", 7, func(o *object) {
		releasedBy("a", 7)(o)
		o.Spec.LeaseTransitions = new(int32(8)) // another elector had it meanwhile
	}))
	s.freeIn(testTTL)
}

func TestAShorterDurationDoesNotFreeALease(t *testing.T) {
	s := newScene(t)
	s.sees(s.object("a", 1, func(o *object) { o.Spec.LeaseDurationSeconds = new(int32(60)) }))
	s.now += time.Second
	s.sees(s.object("a", 1, func(o *object) { o.Spec.LeaseDurationSeconds = new(int32(1)) }))
	s.freeIn(59 * time.Second)
}

func TestALeaseLastsForTheTTLOfWhoWaitsAtLeast(t *testing.T) {
	s := newScene(t)
	s.sees(s.object("a", 1, func(o *object) { o.Spec.LeaseDurationSeconds = new(int32(1)) }))
	s.freeIn(testTTL)
}

func TestATypingErrorInTheDurationIsBounded(t *testing.T) {
	s := newScene(t)
	s.sees(s.object("a", 1, func(o *object) { o.Spec.LeaseDurationSeconds = new(int32(math.MaxInt32)) }))
	s.freeIn(maxTTL)
}

func TestADeletedLeaseIsFreeAWholeDurationAfterThat(t *testing.T) {
	s := newScene(t)
	s.sees(s.object("a", 1, nil))
	s.now += testTTL - time.Second
	s.deleted()
	s.freeIn(testTTL)
	s.now += time.Second
	s.store.observeGone(testName, "")
	s.freeIn(testTTL - time.Second)
}

func TestADeletedLeaseThatWasReleasedIsFree(t *testing.T) {
	s := newScene(t)
	s.sees(s.object("a", 1, releasedBy("a", 1)))
	s.deleted()
	s.freeIn(0)
}

func TestAListOutweighsWhatWasKnownBefore(t *testing.T) {
	s := newScene(t)
	old := s.object("a", 1, releasedBy("a", 1))
	s.sees(s.object("b", 2, nil))
	s.now += time.Second
	asked := s.now
	s.now += time.Second
	s.store.replace([]object{*old}, old.ResourceVersion, asked) // a server that was restored from a backup
	state, _ := s.store.look(testName)
	if state.object.ResourceVersion != old.ResourceVersion {
		t.Errorf("known is version %s, want %s", state.object.ResourceVersion, old.ResourceVersion)
	}
	s.freeIn(testTTL)
}

func TestAnAnswerOutweighsAListThatWasAskedForBefore(t *testing.T) {
	s := newScene(t)
	old := s.object("a", 1, releasedBy("a", 1))
	asked := s.now
	s.now += time.Second
	mine := s.object("b", 2, nil)
	s.store.answered(mine)
	s.store.replace([]object{*old}, old.ResourceVersion, asked)
	state, _ := s.store.look(testName)
	if state.object.ResourceVersion != mine.ResourceVersion {
		t.Errorf("known is version %s, want %s", state.object.ResourceVersion, mine.ResourceVersion)
	}
}

// made has this node make the object, with an empty one known before.
func (s *scene) made(node string) *object {
	return s.object(node, 1, func(o *object) { claim{id: "id", node: node, token: 1, ttl: testTTL}.settles(o, o.Spec.RenewTime.Time) })
}

func (s *scene) settles() time.Duration {
	a := &attempt{store: s.store, name: testName, claim: claim{id: "id", node: "me", token: 1, ttl: testTTL}, wrote: true}
	state, _ := s.store.look(testName)
	return a.settles(state, s.now)
}

func TestANewObjectSettlesUntilTheWatchProvesThatNobodyHasTheID(t *testing.T) {
	s := newScene(t)
	s.store.replace(nil, "1", s.now)
	s.version = 10
	mine := s.made("me")
	s.store.answered(mine)
	s.now += testTTL
	if got := s.settles(); got != settle {
		t.Errorf("before the watch has told of the object, it settles for %v, want %v", got, settle)
	}
	s.sees(mine)
	s.now -= time.Second
	if got := s.settles(); got != settle {
		t.Errorf("a newcomer settles for %v, want %v", got, settle)
	}
	s.now += time.Second
	if got := s.settles(); got != 0 {
		t.Errorf("it settles for %v though all is known", got)
	}
}

func TestAHolderThatTheWatchTellsOfLateIsPutBack(t *testing.T) {
	s := newScene(t)
	s.store.replace(nil, "1", s.now)
	s.now += testTTL
	theirs := s.object("b", 7, nil)
	s.version++ // it was deleted
	mine := s.made("me")
	s.store.answered(mine)
	s.sees(theirs)
	s.store.observeGone(testName, "2")
	s.sees(mine)
	if got := s.settles(); got != testTTL {
		t.Errorf("it settles for %v, want %v: b may run", got, testTTL)
	}
	m := &mender{store: s.store, node: "me"}
	state, _ := s.store.look(testName)
	put := m.plan(state)
	if put == nil || *put.Spec.HolderIdentity != "b" || put.ResourceVersion != mine.ResourceVersion {
		t.Errorf("mending writes %+v, want b's lease over the object that is there", put)
	}
}

// A node that has looked at it because an id would need it has nothing to do with it.
func TestTheObjectOfAnotherProgramIsNotPutBack(t *testing.T) {
	s := newScene(t)
	s.store.answered(s.object("controller", 1, func(o *object) { o.Annotations, o.Labels = nil, nil }))
	s.store.observeGone(testName, "")
	m := &mender{store: s.store, node: "b"}
	if state, _ := s.store.look(testName); m.plan(state) != nil {
		t.Error("it is put back after it was deleted")
	}
}

func TestWhoMayTakeBack(t *testing.T) {
	mine := claim{id: "id", node: "me", token: 7}
	for name, test := range map[string]struct {
		record
		want bool
	}{
		"the holder was removed":                  {record{token: 7}, true},
		"all was removed":                         {record{}, true},
		"a newcomer has made it, and waits":       {record{holder: "b", token: 9, settling: true}, true},
		"a newcomer has made it, and runs":        {record{holder: "b", token: 8}, false},
		"a hand has put another holder there":     {record{holder: "b", token: 7}, false},
		"an older lease was put back":             {record{holder: "b", token: 6}, true},
		"another has had it since, and is done":   {record{token: 8, released: true}, false},
		"a hand has removed a later one's holder": {record{token: 8}, false},
	} {
		if got := mine.mayTakeBack(test.record); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestObjectNames(t *testing.T) {
	seen := map[string]string{}
	for _, id := range []string{"worker", "Worker", "worker ", "a/b.c", "🗡", "-", "0", "ünï", longID, longID + "y"} {
		name := objectName(id)
		if wrong := validation.IsDNS1123Label(name); len(wrong) > 0 {
			t.Errorf("%q gives %q: %v", id, name, wrong)
		}
		if other, twice := seen[name]; twice {
			t.Errorf("%q and %q both give %q", id, other, name)
		}
		seen[name] = id
	}
	if got, want := objectName("worker"), "worker-sp3xk3l2p3wdx3g5"; got[:7] != want[:7] || len(got) != len(want) {
		t.Errorf("got %q, want something like %q", got, want)
	}
}

var longID = strings.Repeat("x", 254)

func TestTokensGrowBeyondWhatLeaseTransitionsHasRoomFor(t *testing.T) {
	o := &object{}
	for _, token := range []uint64{math.MaxInt32, math.MaxInt32 + 1, math.MaxInt32 + 2} {
		claim{id: "id", node: "a", token: token, ttl: testTTL}.holds(o, time.Now())
		if got := readRecord(o).token; got != token {
			t.Errorf("token %d is read as %d", token, got)
		}
	}
	if got := *o.Spec.LeaseTransitions; got != math.MaxInt32 {
		t.Errorf("leaseTransitions is %d", got)
	}
	for _, bad := range []string{"", "x", "-1", "9223372036854775807", "18446744073709551615"} {
		o.Annotations[tokenKey] = bad
		if got := readRecord(o).token; got != math.MaxInt32 {
			t.Errorf("with %s=%q the token is %d, want that of leaseTransitions", tokenKey, bad, got)
		}
	}
}

func TestEveryRenewalShows(t *testing.T) {
	o, now := &object{}, time.Now()
	mine := claim{id: "id", node: "a", token: 1, ttl: testTTL}
	mine.holds(o, now)
	before := readRecord(o)
	mine.holds(o, now) // the clock stands still
	if readRecord(o) == before {
		t.Error("a renewal has changed nothing")
	}
}
