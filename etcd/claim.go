package etcd

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"highlander"
	"highlander/internal/lease"
	"highlander/internal/retry"
)

// claim is one call of Acquire, from its key in etcd to the end of its lease. What
// moves it is the goroutine of Acquire, then that of Release; what others do to its
// keys comes in through examine.
type claim struct {
	c    *Cluster
	s    *session
	ref  claimRef
	opts highlander.AcquireOptions

	// The lock of the cluster guards these.
	created  int64         // revision of its key; zero: not known to be there
	seen     time.Duration // when the last request was sent that has found it there
	gone     bool          // a renewal has not
	record   record        // that it wrote when it won
	won      int64         // revision of that; zero: it has not
	lease    *lease.Lease  // nil before
	leaving  bool          // it is being given up
	mending  bool          // its record is being put back
	finished chan struct{}
}

var errClaimGone = errors.New("the claim was deleted")

func (c *Cluster) newClaim(s *session, id string, opts highlander.AcquireOptions) *claim {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.number++
	cl := &claim{c: c, s: s, ref: claimRef{s.id, id, c.number}, opts: opts, finished: make(chan struct{})}
	if c.claims[id] == nil {
		c.claims[id] = map[claimRef]*claim{}
	}
	c.claims[id][cl.ref] = cl
	s.claims++
	return cl
}

// acquire returns the lease when the claim has won it. Else the claim is given up
// in the background.
func (cl *claim) acquire(ctx context.Context) (*lease.Lease, error) {
	joint, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(cl.s.ctx, func() { cancel(context.Cause(cl.s.ctx)) })()
	l, err := cl.win(joint)
	if err != nil {
		cl.c.spawn(func() { cl.giveUp(cl.c.work) })
	}
	return l, err
}

func (cl *claim) win(ctx context.Context) (*lease.Lease, error) {
	if err := cl.compete(ctx); err != nil {
		return nil, err
	}
	cl.c.log.Debug("the claim has won", "id", cl.ref.id)
	if err := cl.awaitFresh(ctx); err != nil {
		return nil, err
	}
	return cl.grant()
}

// compete returns when the claim has won.
func (cl *claim) compete(ctx context.Context) error {
	won, err := cl.enter(ctx)
	if won || err != nil {
		return err
	}
	var watched *vigil
	defer func() { watched.leave() }()
	for {
		look := cl.c.look(cl.ref, watched)
		before := watched
		watched = cl.c.follow(watched, look.holder, look.ttl)
		switch {
		case look.gone:
			return errClaimGone
		case look.won:
			return nil
		case look.take:
			won, err := cl.take(ctx, look.revision)
			if won && look.after.State == stateHeld {
				cl.c.log.Info("the lease of the holder has run out; taking over", "id", cl.ref.id, "holder", look.after.Node, "held", look.after.Token)
			}
			if won || err != nil {
				return err
			}
		}
		if watched != before {
			continue // it may have seen something
		}
		if err := look.wait(ctx); err != nil {
			return err
		}
	}
}

// outlook is what a claim that waits can see.
type outlook struct {
	gone     bool // its key was there and is not any more
	won      bool // the holder before has handed the id over to it
	take     bool // it may take the id, if the record is still of ...
	revision int64
	after    record // the last one of the id

	holder clientv3.LeaseID // whose lease is worth a look; zero: none
	ttl    time.Duration

	changed <-chan struct{} // closed when this is not true any more
	sighted <-chan struct{} // the same, of what was seen of the lease of the holder
	opens   time.Duration   // when it may take the id, if nothing changes; zero: not known
}

func (c *Cluster) look(at claimRef, watched *vigil) outlook {
	seen, sighted := watched.seen()
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.view.id(at.id)
	cl := c.claims[at.id][at]
	look := outlook{revision: e.revision, after: e.record, changed: e.changed, sighted: sighted}
	if e.created(at) == 0 {
		look.gone = c.view.revision >= cl.created
		return look
	}
	if e.record.of(at) && e.record.revision == e.revision {
		cl.won, cl.record, look.won = e.revision, e.record, true
		return look
	}
	if !e.isNext(at) {
		return look
	}
	if e.known && e.record.State == stateHeld && c.sessions[e.record.at.lease] == nil {
		look.holder, look.ttl = e.record.at.lease, e.record.ttl
	}
	if watched != nil && watched.lease != e.record.at.lease {
		seen = nil
	}
	opens, ok := e.opensAt(seen)
	if !ok {
		return look
	}
	if look.take = now() >= opens; !look.take {
		look.opens = opens
	}
	return look
}

// wait waits until it is worth looking again.
func (o outlook) wait(ctx context.Context) error {
	var opens <-chan time.Time
	if o.opens != 0 {
		timer := time.NewTimer(o.opens - now())
		defer timer.Stop()
		opens = timer.C
	}
	select {
	case <-o.changed:
	case <-opens:
	case <-o.sighted:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// enter puts the claim in the queue; where there is none and nobody holds the id,
// it wins in the same transaction. It may be made twice: an answer may be lost.
func (cl *claim) enter(ctx context.Context) (won bool, err error) {
	key, held := cl.keys()
	put := clientv3.OpPut(key, cl.newRecord().value())
	absent := clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
	if free, revision := cl.free(); free {
		r := cl.newRecord()
		won, err = cl.try(ctx, r, transaction{
			ifs:  []clientv3.Cmp{absent, cl.alive(), clientv3.Compare(clientv3.ModRevision(held), "=", revision)},
			then: []clientv3.Op{put, clientv3.OpPut(held, r.value())},
		})
		if won || err != nil {
			return won, err
		}
	}
	return cl.try(ctx, record{}, transaction{ifs: []clientv3.Cmp{absent, cl.alive()}, then: []clientv3.Op{put}})
}

// take takes the id, if its record is still of that revision. If not, the watch
// will tell what has changed.
func (cl *claim) take(ctx context.Context, revision int64) (won bool, err error) {
	key, held := cl.keys()
	r := cl.newRecord()
	return cl.try(ctx, r, transaction{
		ifs: []clientv3.Cmp{
			clientv3.Compare(clientv3.CreateRevision(key), "=", cl.created),
			cl.alive(),
			clientv3.Compare(clientv3.ModRevision(held), "=", revision),
		},
		then: []clientv3.Op{clientv3.OpPut(held, r.value())},
	})
}

// try makes a transaction until it is answered, and returns whether the claim has
// won: the transaction wrote r, or it or one before it had done so already, and
// the answer was lost.
func (cl *claim) try(ctx context.Context, r record, t transaction) (won bool, err error) {
	key, held := cl.keys()
	t.id, t.orElse = cl.ref.id, []clientv3.Op{clientv3.OpGet(key), clientv3.OpGet(held)}
	for wait := newBackoff(); ; {
		sent := now()
		a, err := cl.c.txn(ctx, t)
		switch {
		case err == nil && a.succeeded:
			return cl.wrote(r, a.revision, sent), nil
		case err == nil:
			return cl.recognise(a.key(key), a.key(held), sent), nil
		case ctx.Err() == nil:
			cl.c.log.Debug("etcd: a transaction has failed", "id", cl.ref.id, "error", err)
		}
		if !wait.Sleep(ctx) {
			return false, context.Cause(ctx)
		}
	}
}

// alive is the condition that this process has its lease.
func (cl *claim) alive() clientv3.Cmp {
	return clientv3.Compare(clientv3.LeaseValue(cl.c.keys.node(cl.s.id)), "=", cl.s.id)
}

func (cl *claim) keys() (key, held string) {
	return cl.c.keys.claim(cl.ref), cl.c.keys.held(cl.ref.id)
}

// free says whether the id can be had at once, if its record is of that revision.
func (cl *claim) free() (bool, int64) {
	c := cl.c
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.view.id(cl.ref.id)
	return e.isFree(now()), e.revision
}

// newRecord returns the record of this claim as the holder.
func (cl *claim) newRecord() record {
	c := cl.c
	r := newRecord(cl.ref, cl.s.terms.TTL)
	r.Node, r.Meta, r.Since = c.name, cl.opts.Meta, time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	r.Token = c.nextToken(c.view.id(cl.ref.id))
	return r
}

// wrote notes that the key of the claim is there, and r, if it is not empty. The
// transaction was sent at that time.
func (cl *claim) wrote(r record, revision int64, sent time.Duration) (won bool) {
	cl.c.mu.Lock()
	defer cl.c.mu.Unlock()
	cl.seen = max(cl.seen, sent)
	if cl.created == 0 {
		cl.created = revision
	}
	if r.State == "" {
		return false
	}
	if r.Token == 0 {
		r.Token = uint64(revision)
	}
	cl.won, cl.record = revision, r
	return true
}

// recognise looks at what is there instead of what a transaction expected that
// was sent at that time.
func (cl *claim) recognise(key, held *mvccpb.KeyValue, sent time.Duration) (won bool) {
	cl.c.mu.Lock()
	defer cl.c.mu.Unlock()
	if key == nil {
		return false
	}
	cl.created, cl.seen = key.CreateRevision, max(cl.seen, sent)
	if held == nil {
		return false
	}
	r, err := parseRecord(cl.ref.id, held)
	if err != nil || !r.of(cl.ref) {
		return false
	}
	cl.won, cl.record = held.ModRevision, r
	return true
}

// until returns when the lease of the claim runs out: a TTL after the sending of
// the last renewal of the lease in etcd, or of the last request that has found the
// claim there, whichever was first. Somebody may have deleted it since, and the
// others wait for no more than that. The caller has the lock.
func (cl *claim) until() time.Duration {
	return cl.s.terms.Until(min(cl.s.sent, cl.seen))
}

// awaitFresh waits until a lease that is handed out now would not be about to run
// out.
func (cl *claim) awaitFresh(ctx context.Context) error {
	s := cl.s
	for {
		cl.c.mu.Lock()
		left, gone, accepted := cl.until()-now(), cl.gone, s.accepted
		cl.c.mu.Unlock()
		if gone || left > cl.opts.StopWithin+lease.Margin+s.terms.TTL/8 {
			return nil
		}
		select {
		case <-accepted:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// grant hands the lease out. What has happened to the claim since it has won is
// looked at then.
func (cl *claim) grant() (*lease.Lease, error) {
	c := cl.c
	c.mu.Lock()
	token, until := cl.record.Token, cl.until()
	c.mu.Unlock()
	l := cl.s.book.Grant(lease.Grant{ID: cl.ref.id, Token: token, StopWithin: cl.opts.StopWithin, Until: until, Release: cl.release, End: cl.over})
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed: // Close knows of no lease: it waits until Acquire has given the claim up
		return nil, highlander.ErrClosed
	case cl.gone:
		l.Lose(highlander.ErrLeaseLost)
		return nil, errClaimGone
	}
	cl.lease = l
	l.Renew(cl.until()) // what was renewed meanwhile
	c.examine([]string{cl.ref.id})
	return l, nil
}

// release is what Lease.Release does. If ctx ends before etcd has answered, it is
// done in the background: then others may have to wait.
func (cl *claim) release(ctx context.Context) error {
	c := cl.c
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil // Close does it
	}
	c.spawn(func() { cl.giveUp(c.work) })
	c.mu.Unlock()
	select {
	case <-cl.finished:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// over is called when the lease is over, perhaps without Release: then it has run
// out.
func (cl *claim) over() {
	c := cl.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if !cl.leaving && !c.closed {
		c.spawn(func() { cl.giveUp(c.work) })
	}
}

// giveUp removes the claim and, if it has won, writes the mark that tells others
// that nothing runs any more, in one transaction. It goes on until that has
// succeeded or ctx ends.
func (cl *claim) giveUp(ctx context.Context) {
	c := cl.c
	c.mu.Lock()
	if cl.leaving {
		c.mu.Unlock()
		<-cl.finished
		return
	}
	cl.leaving = true
	c.mu.Unlock()
	defer close(cl.finished)
	removed, ok := cl.leave(ctx)
	if !ok {
		return
	}
	c.log.Debug("the claim was given up", "id", cl.ref.id)
	c.mu.Lock()
	delete(c.claims[cl.ref.id], cl.ref)
	if len(c.claims[cl.ref.id]) == 0 {
		delete(c.claims, cl.ref.id)
	}
	cl.s.claims--
	if e := c.view.id(cl.ref.id); e.claims[cl.ref].created > removed { // by a transaction that had no answer
		c.sweep(e)
	}
	revoke := c.forgetSession(cl.s)
	c.mu.Unlock()
	if revoke {
		c.revoke(cl.s)
	}
}

// leave is the part of giveUp that tells etcd. It returns the revision at which the
// claim was not there any more; ok is false if ctx has ended before.
func (cl *claim) leave(ctx context.Context) (removed int64, ok bool) {
	key, held := cl.keys()
	remove, read := clientv3.OpDelete(key), clientv3.OpGet(held)
	cl.c.mu.Lock()
	mark, revision := cl.record, cl.won
	cl.c.mu.Unlock()
	handOver := mark.State != ""
	for wait := newBackoff(); ; {
		t := transaction{id: cl.ref.id, then: []clientv3.Op{remove, read}}
		if mark.State != "" {
			t.ifs = []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(held), "=", revision)}
			t.then = []clientv3.Op{remove, clientv3.OpPut(held, mark.released().value())}
			t.orElse = []clientv3.Op{remove, read}
		}
		if handOver {
			handOver = cl.bequeath(&t)
		}
		a, err := cl.c.txn(ctx, t)
		switch {
		case err != nil:
			if !wait.Sleep(ctx) {
				return 0, false
			}
			continue
		case mark.State != "" && a.succeeded:
			return a.revision, true
		case handOver: // perhaps the heir is gone
			handOver = false
			continue
		}
		kv := a.key(held)
		if kv == nil { // never written, or deleted by hand
			if mark.State == "" {
				return a.revision, true
			}
			revision = 0
			continue
		}
		r, err := parseRecord(cl.ref.id, kv)
		switch {
		case err != nil && mark.State == "", err == nil && !r.of(cl.ref):
			return a.revision, true // another's, or released already
		case err == nil:
			mark = r // the claim had won, and the answer was lost
		}
		revision = kv.ModRevision
	}
}

// bequeath makes the transaction that releases the id give it to the next claim
// at once: that spares the next one a transaction. It returns false if there is
// none.
func (cl *claim) bequeath(t *transaction) bool {
	c := cl.c
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.view.id(cl.ref.id)
	next, r, ok := e.heir()
	if !ok || !e.record.of(cl.ref) || e.created(cl.ref) == 0 {
		return false
	}
	r.Since, r.Token = time.Now(), c.nextToken(e)
	t.ifs = append(t.ifs,
		clientv3.Compare(clientv3.CreateRevision(c.keys.claim(next)), "=", e.created(next)),
		clientv3.Compare(clientv3.LeaseValue(c.keys.node(next.lease)), "=", next.lease))
	t.then = []clientv3.Op{t.then[0], clientv3.OpPut(c.keys.held(cl.ref.id), r.value())}
	return true
}

// nextToken returns the token of a record that is written now; zero: its revision,
// unless a higher token was seen: then etcd was restored from a backup. The caller
// has the lock.
func (c *Cluster) nextToken(e *entry) uint64 {
	if e.floor > 0 && e.floor >= uint64(c.view.revision) {
		return e.floor + 1
	}
	return 0
}

// examine looks at what has happened to the ids of this process's claims. The
// caller has the lock.
func (c *Cluster) examine(ids []string) {
	c.checkSession()
	for _, id := range ids {
		e := c.view.id(id)
		for _, cl := range c.claims[id] {
			cl.examine(e)
		}
		c.sweep(e)
	}
	for lease := range c.view.dead(ids) {
		if c.sessions[lease] == nil && !c.collecting[lease] && !c.closed {
			c.collecting[lease] = true
			c.spawn(func() { c.collect(lease) })
		}
	}
}

// collect deletes the claims of a process that is no more. All others do, so it
// waits for a while of its own.
func (c *Cluster) collect(lease clientv3.LeaseID) {
	if !retry.Sleep(c.ctx, rand.N(c.cfg.ttl)) {
		return
	}
	err := c.try(c.ctx, c.requestTimeout(), func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(c.keys.node(lease)), "=", 0)).
			Then(clientv3.OpDelete(c.keys.claims(lease), clientv3.WithPrefix())).Commit()
		return err
	})
	if err != nil {
		c.log.Debug("the claims of a process that is no more were not deleted", "error", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.collecting, lease)
}

// examine tells the holder when its claim or its record is not what it wrote.
func (cl *claim) examine(e *entry) {
	c := cl.c
	if cl.lease == nil || cl.leaving || c.view.revision < cl.won {
		return
	}
	another := e.revision != 0 && e.record.revision == e.revision && e.record.State == stateHeld && e.record.at != cl.ref
	switch {
	case another:
		cl.lease.Lose(highlander.ErrConflict)
		return
	case e.created(cl.ref) != cl.created:
		cl.lease.Lose(highlander.ErrLeaseLost)
	}
	if !(e.record.of(cl.ref) && e.record.revision == e.revision) && !cl.mending {
		cl.mending = true
		revision := e.revision
		c.spawn(func() { cl.mend(revision) })
	}
}

// mend puts the record back that somebody has deleted or overwritten, so that
// those who see the id for the first time know that it is held.
func (cl *claim) mend(revision int64) {
	_, held := cl.keys()
	c := cl.c
	c.log.Warn("somebody has deleted or overwritten the record of an id that is held here; putting it back", "id", cl.ref.id, "token", cl.record.Token)
	put := transaction{
		id:   cl.ref.id,
		ifs:  []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(held), "=", revision)},
		then: []clientv3.Op{clientv3.OpPut(held, cl.record.value())},
	}
	for wait := newBackoff(); !cl.isLeaving(); {
		_, err := c.txn(c.ctx, put)
		if err == nil || !wait.Sleep(c.ctx) {
			break
		}
		c.log.Debug("the record was not put back; trying again", "id", cl.ref.id, "error", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	cl.mending = false
	if e := c.view.id(cl.ref.id); e.revision != revision {
		cl.examine(e) // what has come meanwhile was not looked at
	}
}

func (cl *claim) isLeaving() bool {
	cl.c.mu.Lock()
	defer cl.c.mu.Unlock()
	return cl.leaving
}

// sweep gives claims up that are of this process and of no call of Acquire: such
// as one whose request was given up and carried out later. The caller has the
// lock.
func (c *Cluster) sweep(e *entry) {
	for at := range e.claims {
		s := c.sessions[at.lease]
		if s == nil || c.claims[at.id][at] != nil || c.closed {
			continue
		}
		stray := &claim{c: c, s: s, ref: at, finished: make(chan struct{})}
		if c.claims[at.id] == nil {
			c.claims[at.id] = map[claimRef]*claim{}
		}
		c.claims[at.id][at] = stray
		s.claims++
		c.spawn(func() { stray.giveUp(c.work) })
	}
}
