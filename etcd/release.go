package etcd

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

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
	case <-cl.gone:
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
	if !cl.state.isOver() && !c.closed {
		c.spawn(func() { cl.giveUp(c.work) })
	}
}

// giveUp removes the claim and, if it has won, writes the mark that tells others
// that nothing runs any more, in one transaction. It goes on until that has
// succeeded or ctx ends.
func (cl *claim) giveUp(ctx context.Context) {
	c := cl.c
	c.mu.Lock()
	first := cl.move(claimLeaving)
	c.mu.Unlock()
	if !first {
		<-cl.gone
		return
	}
	defer cl.end()
	removed, ok := cl.leave(ctx)
	if !ok {
		return
	}
	c.log.Debug("the claim was given up", "id", cl.ref.id)
	c.mu.Lock()
	c.forgetClaim(cl)
	if e := c.view.id(cl.ref.id); e.claims[cl.ref].created > removed { // by a transaction that had no answer
		c.sweep(e)
	}
	revoke := c.forgetSession(cl.s)
	c.mu.Unlock()
	if revoke {
		c.revoke(cl.s)
	}
}

// end is the last that giveUp does: whoever waits for it may go on.
func (cl *claim) end() {
	cl.c.mu.Lock()
	defer cl.c.mu.Unlock()
	cl.move(claimGone)
	close(cl.gone)
}

// leave is the part of giveUp that tells etcd. It returns the revision at which the
// claim was not there any more; ok is false if ctx has ended before.
func (cl *claim) leave(ctx context.Context) (removed int64, ok bool) {
	key, held := cl.keys()
	remove, read := clientv3.OpDelete(key), clientv3.OpGet(held)
	cl.c.mu.Lock()
	mark, revision := cl.record, cl.record.revision
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
