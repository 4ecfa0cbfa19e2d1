package etcd

import (
	clientv3 "go.etcd.io/etcd/client/v3"

	"highlander"
)

// examine tells the holder when its claim or its record is not what it wrote.
func (cl *claim) examine(e *entry) {
	c := cl.c
	if cl.state != claimHeld || c.view.revision < cl.record.revision {
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
	for wait := newBackoff(); cl.isHeld(); {
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

func (cl *claim) isHeld() bool {
	cl.c.mu.Lock()
	defer cl.c.mu.Unlock()
	return cl.state == claimHeld
}
