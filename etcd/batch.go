package etcd

import (
	"context"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Transactions about claims go to etcd in batches: what comes while others are
// under way is sent as one, in which each keeps its own condition. So a thousand
// ids are a few requests, and do not keep the renewal waiting.
const (
	batchSize     = 100 // etcd allows 128 operations in a transaction
	batchesAtOnce = 4
)

// transaction is about the keys of one id.
type transaction struct {
	id     string
	ifs    []clientv3.Cmp
	then   []clientv3.Op
	orElse []clientv3.Op
	answer chan answer // has room for it
}

// answer is the one to a transaction.
type answer struct {
	revision  int64 // of what was written, or of etcd if nothing was
	succeeded bool  // then was carried out, else orElse
	found     []*mvccpb.KeyValue
	err       error
}

// batches are the transactions that wait to be sent.
type batches struct {
	mu      sync.Mutex
	queue   []*transaction
	busy    map[string]bool // the ids of those that are under way
	senders int
}

// txn carries out a transaction, once. When ctx ends, or an error comes, it may be
// carried out all the same.
func (c *Cluster) txn(ctx context.Context, t transaction) (answer, error) {
	t.answer = make(chan answer, 1)
	c.batches.mu.Lock()
	c.batches.queue = append(c.batches.queue, &t)
	if c.batches.senders < batchesAtOnce {
		c.batches.senders++
		c.spawn(c.sendBatches)
	}
	c.batches.mu.Unlock()
	select {
	case a := <-t.answer:
		return a, a.err
	case <-ctx.Done():
		return answer{}, context.Cause(ctx)
	}
}

// sendBatches sends until there is nothing to send.
func (c *Cluster) sendBatches() {
	for batch := c.batches.next(nil); len(batch) > 0; batch = c.batches.next(batch) {
		c.send(batch)
	}
}

// next takes a batch out of the queue, when what the sender had before is done. Of
// each id one transaction is under way at a time, so that what gives a claim up
// does not overtake what makes it; and etcd refuses a batch that writes a key twice.
func (b *batches) next(done []*transaction) (batch []*transaction) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.busy == nil {
		b.busy = map[string]bool{}
	}
	for _, t := range done {
		delete(b.busy, t.id)
	}
	var left []*transaction
	for _, t := range b.queue {
		if len(batch) < batchSize && !b.busy[t.id] {
			b.busy[t.id] = true
			batch = append(batch, t)
		} else {
			left = append(left, t)
		}
	}
	b.queue = left
	if len(batch) == 0 { // who has what is under way will be back for the rest
		b.senders--
	}
	return batch
}

func (c *Cluster) send(batch []*transaction) {
	var ops []clientv3.Op
	for _, t := range batch {
		ops = append(ops, clientv3.OpTxn(t.ifs, t.then, t.orElse))
	}
	var resp *clientv3.TxnResponse
	err := c.try(c.work, max(c.requestTimeout(), 2*time.Second), func(ctx context.Context, client *clientv3.Client) (err error) {
		resp, err = client.Txn(ctx).Then(ops...).Commit()
		return err
	})
	for i, t := range batch {
		a := answer{err: err}
		if err == nil {
			one := resp.Responses[i].GetResponseTxn()
			a.revision, a.succeeded = resp.Header.Revision, one.Succeeded
			for _, op := range one.Responses {
				if found := op.GetResponseRange(); found != nil {
					a.found = append(a.found, found.Kvs...)
				}
			}
		}
		t.answer <- a
	}
}

// key returns what was found under a key, nil if nothing.
func (a answer) key(key string) *mvccpb.KeyValue {
	for _, kv := range a.found {
		if string(kv.Key) == key {
			return kv
		}
	}
	return nil
}
