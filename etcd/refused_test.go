package etcd_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"highlander"
	"highlander/etcd"
)

// Users whom the server refuses.
func TestRefused(t *testing.T) {
	t.Parallel()
	s := startServer(t, 1)
	users := writePasswords(t, s, "/highlander/", "user", "denied")
	file := filepath.Join(t.TempDir(), "password")
	must(t, os.WriteFile(file, []byte("wrong\n"), 0o600))
	stranger := s.URL() + "?user=user&password-file=" + file

	// What time will not mend is said at once ...
	t.Run("LookupSaysThatItIsDenied", func(t *testing.T) {
		must(t, s.Deny("denied"))
		tooLate := errors.New("too late")
		limited, cancel := context.WithTimeoutCause(t.Context(), patience, tooLate)
		defer cancel()
		_, err := open(t, s.URL()+users["denied"]).Lookup(limited, "id")
		if !errors.Is(err, rpctypes.ErrPermissionDenied) || errors.Is(err, tooLate) {
			t.Errorf("without rights: %v", err)
		}
	})
	// ... and in any case what was the matter.
	t.Run("LookupSaysWhyItWasInVain", func(t *testing.T) {
		enough := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		limited, stop := context.WithTimeout(ctx, patience)
		defer stop()
		log := when("etcd: a request has failed", func() { cancel(enough) })
		if _, err := open(t, stranger, etcd.WithLogger(log)).Lookup(limited, "id"); !errors.Is(err, enough) || !errors.Is(err, rpctypes.ErrAuthFailed) {
			t.Errorf("with a wrong password: %v", err)
		}
	})
	// A new password takes effect without a restart.
	t.Run("PasswordFileIsReadAgain", func(t *testing.T) {
		log, refused := listenFor("etcd cannot be used; trying again")
		c := open(t, stranger, etcd.WithLogger(log))
		acquired := make(chan highlander.Lease, 1)
		go func() { acquired <- acquire(t, c, "id") }()
		select {
		case <-acquired:
			t.Fatal("acquired with the wrong password")
		case <-refused:
		}
		must(t, os.WriteFile(file, []byte("user's secret\n"), 0o600))
		held(t, <-acquired)
	})
}
