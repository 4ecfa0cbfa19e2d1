package etcd

import (
	"context"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

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

// nextToken returns the token of a record that is written now; zero: its revision,
// unless a higher token was seen: then etcd was restored from a backup. The caller
// has the lock.
func (c *Cluster) nextToken(e *entry) uint64 {
	if e.floor > 0 && e.floor >= uint64(c.view.revision) {
		return e.floor + 1
	}
	return 0
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
	cl.move(claimWaiting)
	if r.State == "" {
		return false
	}
	if r.Token == 0 {
		r.Token = uint64(revision)
	}
	r.revision = revision
	cl.hasWon(r)
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
	cl.move(claimWaiting)
	if held == nil {
		return false
	}
	r, err := parseRecord(cl.ref.id, held)
	if err != nil || !r.of(cl.ref) {
		return false
	}
	cl.hasWon(r)
	return true
}

// hasWon notes the record by which the claim has won, which it will have to mark
// as released in any case. The caller has the lock.
func (cl *claim) hasWon(r record) {
	cl.record = r
	cl.move(claimWon)
}
