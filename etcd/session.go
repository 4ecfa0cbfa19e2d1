package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"highlander"
	"highlander/internal/lease"
	"highlander/internal/retry"
)

// session is a lease in etcd, to which the claims of this process are attached.
// There is one at a time that can be used; when it is lost, another one takes its
// place, and this one lasts until the last child that ran under it has stopped.
type session struct {
	id    clientv3.LeaseID
	terms lease.Terms // as the server has granted them
	book  *lease.Book

	ctx context.Context // ends with the session
	end context.CancelCauseFunc

	// sent is when the last renewal was sent that succeeded. The lock of the
	// cluster guards it.
	sent     time.Duration
	accepted chan struct{} // closed at the next renewal
	claims   int           // that are not given up

	enrolled int64         // the revision of the key of the process
	harmed   chan struct{} // closed when that is gone
}

var (
	errSessionOver  = errors.New("the session is over")
	errLeaseGone    = errors.New("the lease of this process has run out or was revoked")
	errLateRenewals = errors.New("the lease could not be renewed in time")
)

// session waits for a session that can be used.
func (c *Cluster) session(ctx context.Context) (*session, error) {
	for {
		c.mu.Lock()
		s, renewed := c.current, c.renewed
		c.mu.Unlock()
		if s != nil {
			return s, nil
		}
		select {
		case <-renewed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-c.ctx.Done():
			return nil, context.Cause(c.ctx)
		}
	}
}

func (c *Cluster) setSession(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current = s
	if s != nil {
		c.sessions[s.id] = s
	}
	close(c.renewed)
	c.renewed = make(chan struct{})
}

// keepSessions opens a session whenever there is none, until Close.
func (c *Cluster) keepSessions() {
	defer c.tasks.Done()
	trouble := retry.NewOutage(c.log, now, "etcd")
	for wait := newBackoff(); c.ctx.Err() == nil; {
		s, err := c.openSession()
		if err != nil {
			if c.ctx.Err() == nil {
				trouble.Fails(err)
				wait.Sleep(c.ctx)
			}
			continue
		}
		wait.Reset()
		trouble.Works()
		c.log.Debug("the session has begun", "lease", fmt.Sprintf("%016x", uint64(s.id)), "ttl", s.terms.TTL)
		c.setSession(s)
		err = c.keep(s, trouble)
		c.setSession(nil)
		if c.ctx.Err() == nil {
			trouble.Fails(fmt.Errorf("the session was lost: %w", err)) // over with the next one
		}
		c.endSession(s, err)
	}
}

func (c *Cluster) openSession() (*session, error) {
	sent := now()
	var grant *clientv3.LeaseGrantResponse
	err := c.try(c.ctx, c.requestTimeout(), func(ctx context.Context, client *clientv3.Client) (err error) {
		grant, err = client.Grant(ctx, int64(c.cfg.ttl/time.Second))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("get a lease: %w", err)
	}
	s := &session{id: grant.ID, terms: termsOf(time.Duration(grant.TTL) * time.Second), book: lease.NewBook(now, c.log), sent: sent, accepted: make(chan struct{}), harmed: make(chan struct{})}
	if err := c.enrol(s); err != nil {
		c.revoke(s)
		return nil, err
	}
	if s.terms.TTL > c.cfg.ttl {
		c.log.Info("the server does not grant so short a TTL", "ttl", c.cfg.ttl, "granted", s.terms.TTL)
	}
	s.ctx, s.end = context.WithCancelCause(c.ctx)
	return s, nil
}

// enrol writes the key of the process, and waits for the view, without which
// nothing can be acquired.
func (c *Cluster) enrol(s *session) error {
	raw, err := json.Marshal(node{Name: c.name, Since: time.Now(), TTL: s.terms.TTL.String()})
	if err != nil {
		return err
	}
	err = c.try(c.ctx, c.requestTimeout(), func(ctx context.Context, client *clientv3.Client) error {
		resp, err := client.Put(ctx, c.keys.node(s.id), string(raw), clientv3.WithLease(s.id))
		if err == nil {
			s.enrolled = resp.Header.Revision
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("write the key of this node: %w", err)
	}
	timer := time.NewTimer(s.terms.TTL / 2)
	defer timer.Stop()
	select {
	case <-c.loaded:
		return nil
	case <-timer.C:
		return errors.New("the keys could not be read")
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	}
}

// keep renews the lease until that fails for too long, or the server does not
// know it any more.
func (c *Cluster) keep(s *session, trouble *retry.Outage) error {
	due, limit := s.sent+s.terms.Every, s.firstLimit()
	for wait := newBackoff(); ; {
		if err := s.sleep(due - now()); err != nil {
			return err
		}
		sent := now()
		err := c.renew(s, sent, min(limit, s.sent+acceptWithin(s.terms.TTL)-sent))
		switch {
		case err == nil && now()-s.sent <= acceptWithin(s.terms.TTL):
			trouble.Works()
			wait.Reset()
			limit = s.firstLimit()
			c.accept(s, sent)
			due = sent + s.terms.Every
			continue
		case c.ctx.Err() != nil:
			return context.Cause(c.ctx)
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			return errLeaseGone
		case err != nil:
			trouble.Fails(err)
		}
		if now()-s.sent > acceptWithin(s.terms.TTL) {
			return errLateRenewals
		}
		wait.Sleep(c.ctx)
		due, limit = 0, 2*limit
	}
}

// firstLimit is how long a renewal may take. The next one, perhaps by way of another
// member, may take twice as long, and so on: a server that is slow is better than
// none.
func (s *session) firstLimit() time.Duration { return max(s.terms.TTL/8, 500*time.Millisecond) }

// sleep returns an error if the session is over before d has passed.
func (s *session) sleep(d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-s.harmed:
		return errLeaseGone
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}

// checkSession tells the session that can be used when the watch says that the
// key of this process is gone, with its lease or not. The caller has the lock.
func (c *Cluster) checkSession() {
	s := c.current
	if s == nil || c.view.revision < s.enrolled || c.view.nodes[s.id] {
		return
	}
	select {
	case <-s.harmed:
	default:
		close(s.harmed)
	}
}

func (c *Cluster) accept(s *session, sent time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.sent = sent
	close(s.accepted)
	s.accepted = make(chan struct{})
	c.renewLeases(s)
}

// renew renews the lease, and sees that the claims are there: the lease may live
// on while somebody has deleted a claim, and the watch that would tell may hang.
// Both are answered by a majority of the members.
func (c *Cluster) renew(s *session, sent, limit time.Duration) error {
	entered := c.enteredClaims(s)
	return c.try(c.ctx, limit, func(ctx context.Context, client *clientv3.Client) error {
		there, err := client.Txn(ctx).
			If(clientv3.Compare(clientv3.LeaseValue(c.keys.node(s.id)), "=", s.id)).
			Then(clientv3.OpGet(c.keys.claims(s.id), clientv3.WithPrefix(), clientv3.WithKeysOnly())).Commit()
		switch {
		case err != nil:
			return fmt.Errorf("read the claims: %w", err)
		case !there.Succeeded:
			return rpctypes.ErrLeaseNotFound
		}
		created := map[string]int64{}
		for _, kv := range there.Responses[0].GetResponseRange().Kvs {
			created[string(kv.Key)] = kv.CreateRevision
		}
		c.check(entered, created, sent)
		ttl, err := keepAlive(ctx, client, s.id)
		if err != nil {
			return fmt.Errorf("renew the lease: %w", err)
		}
		if ttl < s.terms.TTL {
			return fmt.Errorf("renew the lease: it was %v, and would be %v", s.terms.TTL, ttl)
		}
		return nil
	})
}

// keepAlive renews a lease once. The client's KeepAliveOnce would ask again and
// again, without a pause, while a member is away.
func keepAlive(ctx context.Context, client *clientv3.Client, id clientv3.LeaseID) (time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pb.NewLeaseClient(client.ActiveConnection()).LeaseKeepAlive(ctx)
	if err != nil {
		return 0, clientv3.ContextError(ctx, err)
	}
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(id)}); err != nil {
		return 0, clientv3.ContextError(ctx, err)
	}
	resp, err := stream.Recv()
	if err != nil {
		return 0, clientv3.ContextError(ctx, err)
	}
	if resp.TTL <= 0 {
		return 0, rpctypes.ErrLeaseNotFound
	}
	return time.Duration(resp.TTL) * time.Second, nil
}

// endSession ends a session that was lost, or that Close ends. What is held goes
// on for as long as it is certainly safe, unless the lease is gone.
func (c *Cluster) endSession(s *session, err error) {
	c.mu.Lock()
	s.end(errSessionOver)
	idle := c.forgetSession(s)
	c.mu.Unlock()
	if errors.Is(err, errLeaseGone) {
		s.book.LoseAll(highlander.ErrLeaseLost)
	}
	if idle && c.ctx.Err() == nil {
		c.revoke(s)
	}
}

// forgetSession removes a session that is over and has no claims any more, and
// returns whether its lease is to be revoked. The caller has the lock.
func (c *Cluster) forgetSession(s *session) (revoke bool) {
	if s.ctx.Err() == nil || s.claims > 0 || c.sessions[s.id] == nil {
		return false
	}
	if c.closed { // Close does it
		return false
	}
	delete(c.sessions, s.id)
	return true
}

// revoke tells etcd, once, that the lease is not needed any more; else it runs
// out.
func (c *Cluster) revoke(s *session) {
	err := c.try(c.work, c.requestTimeout(), func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.Revoke(ctx, s.id)
		return err
	})
	if err != nil {
		c.log.Debug("the lease was not revoked; it will run out", "error", err)
	}
}

// endSessions is the part of Close that tells etcd: first that the holders are no
// more, and then that nothing is waited for.
func (c *Cluster) endSessions() {
	c.mu.Lock()
	var held []*claim
	sessions := make([]*session, 0, len(c.sessions))
	for _, s := range c.sessions {
		sessions = append(sessions, s)
	}
	for _, claims := range c.claims {
		for _, cl := range claims {
			if cl.lease != nil { // also if it is leaving: its mark comes before the end of the session
				held = append(held, cl)
			}
		}
	}
	c.mu.Unlock()
	for _, s := range sessions {
		s.book.Close()
	}
	done := make(chan struct{}, len(held))
	for _, cl := range held {
		go func() {
			cl.giveUp(c.work)
			done <- struct{}{}
		}()
	}
	for range held {
		<-done
	}
	for _, s := range sessions {
		c.revoke(s)
	}
}
