package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"highlander"
)

// Of questions, there are so many at most that the goroutine is to deal with: callers
// may have less patience than an outage lasts. And so many are answered at a time: what
// else there is to do, such as renewals, is between them.
const (
	mostQuestions = 64
	answerAtOnce  = 8
)

// question is something to be read at the server.
type question struct {
	ctx  context.Context
	ask  func(context.Context, *pgx.Conn) error
	done chan error
}

// ask has the goroutine read something, as soon as there is a session.
func (n *node) ask(ctx context.Context, ask func(context.Context, *pgx.Conn) error) error {
	select {
	case n.asking <- struct{}{}: // answer takes it out
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-n.ended:
		return highlander.ErrClosed
	}
	q := question{ctx: ctx, ask: ask, done: make(chan error, 1)}
	n.do(func() { n.questions = append(n.questions, q) })
	select {
	case err := <-q.done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-n.ended:
		return highlander.ErrClosed
	}
}

// answer answers some of the questions. It does so in the node's own time: an impatient
// caller must not cost it the session.
func (n *node) answer(ctx context.Context, s *session) error {
	for answered := 0; len(n.questions) > 0 && answered < answerAtOnce; {
		q := n.questions[0]
		if q.ctx.Err() == nil {
			answered++
			if err := n.answerOne(ctx, s, q); err != nil {
				return err
			}
		}
		n.questions = n.questions[1:]
		<-n.asking
	}
	return nil
}

// answerOne returns an error if there is no session any more: the question is asked
// again in the next one.
func (n *node) answerOne(ctx context.Context, s *session, q question) error {
	ctx, cancel := context.WithTimeout(ctx, n.c.opTimeout())
	defer cancel()
	err := q.ask(ctx, s.work)
	if s.work.IsClosed() {
		return err
	}
	q.done <- err
	return nil
}
