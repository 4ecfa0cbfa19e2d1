package etcd_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// What time will not mend is said at once, and in any case what was the matter.
func TestLookupSaysWhyItWasRefused(t *testing.T) {
	t.Parallel()
	s := startServer(t, 1)
	users := writePasswords(t, s, "/highlander/", "user")
	must(t, s.Deny("user"))
	denied := open(t, s.URL()+users["user"])
	tooLate := errors.New("too late")
	limited, cancel := context.WithTimeoutCause(t.Context(), patience, tooLate)
	defer cancel()
	if _, err := denied.Lookup(limited, "id"); !errors.Is(err, rpctypes.ErrPermissionDenied) || errors.Is(err, tooLate) {
		t.Errorf("without rights: %v", err)
	}

	file := filepath.Join(t.TempDir(), "password")
	must(t, os.WriteFile(file, []byte("wrong\n"), 0o600))
	stranger := open(t, s.URL()+"?user=user&password-file="+file)
	enough := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Second, enough)
	defer cancel()
	if _, err := stranger.Lookup(ctx, "id"); !errors.Is(err, enough) || !errors.Is(err, rpctypes.ErrAuthFailed) {
		t.Errorf("with a wrong password: %v", err)
	}
}
