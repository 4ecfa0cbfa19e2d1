package postgres

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"highlander/internal/retry"
)

// serve works in a session until that ends, and returns why.
func (n *node) serve(ctx context.Context, s *session) error {
	n.current = s
	s.watchRing(ctx, n)
	n.nextBeat = 0
	for {
		n.doAll()
		n.hear(s)
		switch err := n.work(context.WithoutCancel(ctx), s); { // to be cut off would cost the session
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && !s.work.IsClosed() && schemaIsGone(err):
			n.look = true // at the next beat it is made again
		case err != nil && (s.work.IsClosed() || !retryable(err)):
			return fmt.Errorf("the session has ended: %w", err)
		case err != nil:
			n.c.log.Debug("trying again", "error", err)
			n.pause = n.clock() + retry.Jitter(100*time.Millisecond)
		}
		if s.ringErr != nil {
			return fmt.Errorf("the session has ended: %w", s.ringErr)
		}
		if err := n.wait(ctx, s); err != nil {
			return fmt.Errorf("the session has ended: %w", err)
		}
	}
}

// work does what is due.
func (n *node) work(ctx context.Context, s *session) error {
	if n.clock() < n.pause {
		return nil
	}
	for _, step := range []func(context.Context, *session) error{n.unlockStrays, n.beat, n.seeEnds, n.expire} {
		if err := step(ctx, s); err != nil {
			return err
		}
	}
	var failed error
	for _, step := range []func(context.Context, *session) error{n.giveBack, n.take, n.answer} {
		if failed != nil && n.clock() >= n.nextBeat {
			break
		}
		err := step(ctx, s)
		if err != nil && (s.work.IsClosed() || !retryable(err)) {
			return err
		}
		failed = cmp.Or(failed, err) // the others are not kept waiting
	}
	n.trouble.note(n, failed)
	return failed
}

// trouble is the time for which something could not be done, in a session that works.
type trouble struct {
	since  time.Duration // zero if there is none
	warned bool
}

func (t *trouble) note(n *node, err error) {
	switch {
	case err == nil:
		*t, n.rowLocked = trouble{}, false
	case t.since == 0:
		t.since = n.clock()
	case !t.warned && n.clock() > t.since+n.c.opTimeout():
		t.warned = true
		n.c.log.Warn("cannot do what is due; trying for as long as it takes", "after", (n.clock() - t.since).Round(time.Millisecond), "error", err)
	}
}

// wait waits for something to do: a notification, a word in the inbox, or time.
func (n *node) wait(ctx context.Context, s *session) error {
	if len(s.notes) > 0 || (n.look || n.more || len(n.questions) > 0) && n.clock() >= n.pause {
		return nil
	}
	left := n.due() - n.clock()
	if left <= 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, left)
	woken := make(chan struct{})
	go func() {
		defer close(woken)
		select {
		case <-n.inbox.wake:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := s.work.PgConn().WaitForNotification(ctx)
	cancel()
	<-woken
	if err != nil && s.work.IsClosed() {
		return err
	}
	return nil
}

// due is when there is something to do even if nothing happens.
func (n *node) due() time.Duration {
	if n.clock() < n.pause {
		return n.pause // something has failed, and is tried again
	}
	at := n.nextBeat
	for _, p := range n.peers {
		at = min(at, p.runsOut())
	}
	return at
}

// hear reads the notifications that have come.
func (n *node) hear(s *session) {
	for _, note := range s.notes {
		switch what, rest, _ := strings.Cut(note, " "); what {
		case "ring":
			n.look = true
		case "take":
			session, id, _ := strings.Cut(rest, " ")
			if session == strconv.FormatInt(s.number, 10) {
				n.calls[id] = true
			}
		}
	}
	s.notes = nil
}
