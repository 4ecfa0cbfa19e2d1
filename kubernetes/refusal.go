package kubernetes

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// refuser is the transport of a client of ours. client-go waits by itself for as
// long as a server asks for (Retry-After) that refuses a request. If that is
// longer than the request may take, it would be told that the time is over, and
// nothing of the refusal: it would ask again too early, and on new connections.
type refuser struct{ http.RoundTripper }

// refusal ends a request that was refused for longer than it may take.
type refusal struct{ *apierrors.StatusError }

type refuseKey struct{}

// withRefusal returns a context for a request that a refuser may end.
func withRefusal(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, refuse := context.WithCancelCause(ctx)
	return context.WithValue(ctx, refuseKey{}, refuse), refuse
}

func (t refuser) RoundTrip(request *http.Request) (*http.Response, error) {
	answer, err := t.RoundTripper.RoundTrip(request)
	if err != nil || answer.StatusCode != http.StatusTooManyRequests {
		return answer, err
	}
	refuse, ours := request.Context().Value(refuseKey{}).(context.CancelCauseFunc)
	seconds, wrong := strconv.Atoi(answer.Header.Get("Retry-After"))
	end, limited := request.Context().Deadline()
	if wait := time.Duration(seconds) * time.Second; ours && wrong == nil && limited && wait > time.Until(end) {
		refuse(&refusal{apierrors.NewTooManyRequests(fmt.Sprintf("the server refuses requests for %v", wait), seconds)})
	}
	return answer, nil
}

// WrappedRoundTripper is how client-go finds what is inside.
func (t refuser) WrappedRoundTripper() http.RoundTripper { return t.RoundTripper }
