package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// refuser is the transport of a client of ours. client-go waits by itself for as
// long as a server asks for (Retry-After) that refuses a request or has failed. If
// that is longer than the request may take, it would be told that the time is
// over, and nothing of the refusal: it would ask again too early, and on new
// connections.
type refuser struct{ http.RoundTripper }

// refusal ends a request that was refused for longer than it may take.
type refusal struct{ *apierrors.StatusError }

// refusable is what a refuser has to know of a request.
type refusable struct {
	end    time.Time // of its time
	refuse context.CancelCauseFunc
}

type refusableKey struct{}

// withRefusal returns a context for a request that is to be answered within a
// time, and that a refuser may end.
func withRefusal(ctx context.Context, limit time.Duration) (context.Context, context.CancelCauseFunc) {
	ctx, refuse := context.WithCancelCause(ctx)
	return context.WithValue(ctx, refusableKey{}, refusable{time.Now().Add(limit), refuse}), refuse
}

// orRefusal returns the refusal that has ended a request, if one has, instead of
// its error.
func orRefusal(ctx context.Context, err error) error {
	if refused := new(refusal); err != nil && errors.As(context.Cause(ctx), &refused) {
		return refused.StatusError
	}
	return err
}

func (t refuser) RoundTrip(request *http.Request) (*http.Response, error) {
	answer, err := t.RoundTripper.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	ours, ok := request.Context().Value(refusableKey{}).(refusable)
	if seconds := pauseAskedFor(answer); ok && time.Duration(seconds)*time.Second > time.Until(ours.end) {
		ours.refuse(&refusal{newStatusError(answer, seconds)})
	}
	return answer, nil
}

// pauseAskedFor returns for how many seconds client-go would wait because of an
// answer, and zero if it would not.
func pauseAskedFor(answer *http.Response) int {
	if answer.StatusCode != http.StatusTooManyRequests && answer.StatusCode < http.StatusInternalServerError {
		return 0
	}
	seconds, err := strconv.Atoi(answer.Header.Get("Retry-After"))
	if err != nil {
		return 0
	}
	return min(seconds, math.MaxInt32)
}

func newStatusError(answer *http.Response, seconds int) *apierrors.StatusError {
	reason := meta.StatusReasonInternalError
	switch answer.StatusCode {
	case http.StatusTooManyRequests:
		reason = meta.StatusReasonTooManyRequests
	case http.StatusServiceUnavailable:
		reason = meta.StatusReasonServiceUnavailable
	}
	return &apierrors.StatusError{ErrStatus: meta.Status{
		Status:  meta.StatusFailure,
		Code:    int32(answer.StatusCode),
		Reason:  reason,
		Message: fmt.Sprintf("the server refuses requests for %d s (%s)", seconds, answer.Status),
		Details: &meta.StatusDetails{RetryAfterSeconds: int32(seconds)},
	}}
}

// WrappedRoundTripper is how client-go finds what is inside.
func (t refuser) WrappedRoundTripper() http.RoundTripper { return t.RoundTripper }
