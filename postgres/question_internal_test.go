package postgres

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
)

// While the server is away, callers come that wait for a moment only.
func TestQuestionsDoNotPileUpInAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(&config{}, func() time.Duration { return time.Hour })
		asked := false
		ask := func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			if err := n.ask(ctx, func(context.Context, *pgx.Conn) error { asked = true; return nil }); err != context.DeadlineExceeded {
				t.Fatal(err)
			}
		}
		for range 10_000 {
			ask()
		}
		if kept := len(n.inbox.todo); kept > mostQuestions {
			t.Errorf("%d questions are kept; want %d at most", kept, mostQuestions)
		}
		n.doAll()
		if err := n.answer(t.Context(), nil); err != nil || len(n.questions) != 0 || asked {
			t.Errorf("there is a session again, and of the questions that nobody asks any more %d are left, asked at the server: %v (%v)", len(n.questions), asked, err)
		}
		if ask(); len(n.inbox.todo) != 1 {
			t.Error("the next question does not get through")
		}
	})
}
