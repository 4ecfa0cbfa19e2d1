package etcd

import (
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// world is a view that is told what happens to one id.
type world struct {
	*testing.T
	*view
	now time.Duration
	rev int64
}

const (
	viewTTL   = 10 * time.Second
	holderTTL = 20 * time.Second
)

func newWorld(t *testing.T) *world { return &world{T: t, view: newView(keys{"/p"}, viewTTL)} }

func (w *world) put(key, value string) {
	w.rev++
	w.apply([]event{{kv: &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), CreateRevision: w.rev, ModRevision: w.rev}}}, w.now)
}

func (w *world) del(keys ...string) {
	w.rev++
	var events []event
	for _, key := range keys {
		events = append(events, event{kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: w.rev}, deleted: true})
	}
	w.apply(events, w.now)
}

func (w *world) claim(lease clientv3.LeaseID) claimRef { return claimRef{lease, "id", uint64(lease)} }

// comes has a process appear that claims the id.
func (w *world) comes(lease clientv3.LeaseID) claimRef {
	w.put(w.keys.node(lease), "{}")
	w.put(w.keys.claim(w.claim(lease)), "")
	return w.claim(lease)
}

func (w *world) record(at claimRef, token uint64) record {
	r := newRecord(at, holderTTL)
	r.Token = token
	return r
}

func (w *world) holds(at claimRef, token uint64) { w.put("/p/held/id", w.record(at, token).value()) }

// opens checks when the id may be taken; negative: not as things are.
func (w *world) opens(seen *sighting, want time.Duration) {
	w.Helper()
	at, ok := w.id("id").opensAt(seen)
	if !ok {
		at = -1
	}
	if at != want {
		w.Errorf("it may be taken at %v, want %v", at, want)
	}
}

func TestIDOfAHolderThatIsThereIsNotTaken(t *testing.T) {
	w := newWorld(t)
	w.holds(w.comes(1), 7)
	w.opens(nil, -1)
	w.opens(&sighting{final: true, latest: time.Second}, -1)
}

func TestReleasedIDIsTakenAtOnce(t *testing.T) {
	w := newWorld(t)
	a := w.comes(1)
	w.holds(a, 7)
	w.now = time.Second
	w.del(w.keys.claim(a))
	w.put("/p/held/id", w.record(a, 7).released().value())
	w.opens(nil, 0)
}

// However the claim goes, it is not known whether the child of its holder runs.
func TestIDWhoseClaimIsGoneWaitsForTheTTLOfItsHolder(t *testing.T) {
	for name, harm := range map[string]func(w *world, a claimRef){
		"claim": func(w *world, a claimRef) { w.del(w.keys.claim(a)) },
		"lease": func(w *world, a claimRef) { w.del(w.keys.node(a.lease)) },
		"claim and record": func(w *world, a claimRef) {
			w.del(w.keys.claim(a), "/p/held/id")
		},
		"record and claim": func(w *world, a claimRef) {
			w.del("/p/held/id", w.keys.claim(a))
		},
		"all while nobody watched": func(w *world, a claimRef) { w.load(nil, w.rev, w.now) },
		"restored to before the holder came": func(w *world, a claimRef) {
			w.load([]*mvccpb.KeyValue{{Key: []byte("/p/held/id"), Value: []byte(w.record(w.claim(9), 3).released().value()), ModRevision: 2}}, 2, w.now)
		},
		"another's lower token": func(w *world, a claimRef) {
			w.del(w.keys.claim(a))
			w.put("/p/held/id", w.record(w.claim(9), 3).released().value())
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a := w.comes(1)
			w.holds(a, 7)
			w.now = 100 * time.Second
			harm(w, a)
			w.opens(nil, 120*time.Second)
			w.now = 105 * time.Second
			w.comes(2) // nothing of the holder's
			w.opens(nil, 120*time.Second)
			if got := w.id("id").floor; got < 7 {
				t.Errorf("the highest token is %d, want 7 at least", got)
			}

			w.put("/p/held/id", w.record(a, 7).value()) // which puts it back ...
			if at, ok := w.id("id").opensAt(nil); !ok || at < 120*time.Second {
				t.Errorf("put back by its holder, it may be taken at %v, %v", at, ok)
			}
			w.put("/p/held/id", w.record(a, 7).released().value()) // ... and says when its child has stopped
			w.opens(nil, 0)
		})
	}
}

func TestRecordThatCannotBeReadIsSomebodys(t *testing.T) {
	w := newWorld(t)
	w.now = time.Second
	w.put("/p/held/id", "mine!")
	w.opens(nil, time.Second+viewTTL)
}

func TestWhatWasSeenOfTheLeaseOpensTheID(t *testing.T) {
	w := newWorld(t)
	a := w.comes(1)
	w.holds(a, 7)
	w.now = 100 * time.Second
	w.del(w.keys.node(a.lease))
	w.opens(&sighting{final: true, latest: 101 * time.Second}, 101*time.Second)
	w.opens(&sighting{latest: 101 * time.Second}, 120*time.Second) // it may have been renewed since
	w.opens(&sighting{final: true, latest: 130 * time.Second}, 120*time.Second)
}

// A member that was frozen may say that too little is left. The lease lives on, and
// its holder's child runs when somebody revokes it much later.
func TestLeaseThatWasThereAfterItsEndWasSeenWronglyAndIsWaitedFor(t *testing.T) {
	w := newWorld(t)
	a := w.comes(1)
	w.holds(a, 7)
	w.now = 100 * time.Second
	w.del(w.keys.node(a.lease))
	w.opens(&sighting{final: true, latest: 99 * time.Second}, 99*time.Second) // etcd takes that long
	w.opens(&sighting{final: true, latest: 97 * time.Second}, 120*time.Second)
}

func TestOldestClaimIsNext(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.comes(1), w.comes(2), w.comes(3)
	w.holds(a, 7)
	e := w.id("id")
	if !e.isNext(b) || e.isNext(c) {
		t.Error("behind the holder, the second is next")
	}
	w.del(w.keys.node(b.lease))
	if !e.isNext(c) {
		t.Error("the claim of a process that is gone counts")
	}
	if dead := w.dead([]string{"id"}); len(dead) != 1 || !dead[b.lease] {
		t.Errorf("the claims to be cleared away are of %v", dead)
	}
}

// A record that is released by hand while the claim of the holder is there frees
// nothing: the holder is first in the queue.
func TestMarkByHandFreesNothing(t *testing.T) {
	w := newWorld(t)
	a, b := w.comes(1), w.comes(2)
	w.holds(a, 7)
	w.put("/p/held/id", w.record(a, 8).released().value())
	if w.id("id").isNext(b) {
		t.Error("the claim of the holder does not count")
	}
	if w.id("id").isFree(w.now) {
		t.Error("the id is free")
	}
}

func TestFreeID(t *testing.T) {
	w := newWorld(t)
	if !w.id("id").isFree(0) {
		t.Error("an id that was never seen is not free")
	}
	a := w.comes(1)
	if w.id("id").isFree(0) {
		t.Error("an id that somebody waits for is free")
	}
	w.holds(a, 7)
	w.del(w.keys.node(1))
	if w.id("id").isFree(time.Hour) {
		t.Error("an id whose holder is gone is free to one who has not waited")
	}
}

// The holder hands the id over to the oldest claim that waits, and counts.
func TestHeir(t *testing.T) {
	w := newWorld(t)
	a := w.comes(1)
	w.holds(a, 7)
	if _, _, ok := w.id("id").heir(); ok {
		t.Error("there is an heir, but nobody waits")
	}
	for lease := range clientv3.LeaseID(3) {
		at := w.claim(lease + 2)
		w.put(w.keys.node(at.lease), "{}")
		bid := newRecord(at, time.Duration(at.lease)*time.Second)
		bid.Node, bid.Meta = "n", "m"
		w.put(w.keys.claim(at), bid.value())
	}
	w.del(w.keys.node(2))
	at, r, ok := w.id("id").heir()
	if !ok || at != w.claim(3) || !r.of(at) || r.ttl != 3*time.Second || r.Node != "n" || r.Meta != "m" || r.Token != 0 {
		t.Errorf("the heir is %v with %+v, %v", at, r, ok)
	}
	w.del(w.keys.node(4))
	w.put(w.keys.claim(w.claim(3)), "by hand")
	if _, _, ok := w.id("id").heir(); ok {
		t.Error("a claim that cannot be read is an heir")
	}
}

// A claim may be put and deleted while there is no watch: who waits with it must look
// again, though its id seems to be as it was.
func TestWhoWaitsLooksAgainWhenAllKeysWereRead(t *testing.T) {
	w := newWorld(t)
	w.holds(w.comes(1), 7)
	changed := w.id("id").changed
	w.load([]*mvccpb.KeyValue{
		{Key: []byte(w.keys.node(1)), CreateRevision: 1, ModRevision: 1},
		{Key: []byte(w.keys.claim(w.claim(1))), CreateRevision: 2, ModRevision: 2},
		{Key: []byte("/p/held/id"), Value: []byte(w.record(w.claim(1), 7).value()), CreateRevision: 3, ModRevision: 3},
	}, 9, w.now)
	select {
	case <-changed:
	default:
		t.Error("nobody is woken")
	}
}
