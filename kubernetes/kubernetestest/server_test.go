package kubernetestest_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"highlander/kubernetes/kubernetestest"
)

func TestTheNameOfTheServerSaysWhatItIsBuiltFrom(t *testing.T) {
	hash := sha256.New()
	for _, name := range []string{"go.mod", "go.sum", "main.go"} {
		source, err := os.ReadFile(filepath.Join("apiserver", name))
		if err != nil {
			t.Fatal(err)
		}
		hash.Write(source)
	}
	path, err := kubernetestest.Binary()
	if err != nil {
		t.Fatal(err)
	}
	if sum := fmt.Sprintf("%x", hash.Sum(nil)[:6]); !strings.HasSuffix(path, "-"+sum) {
		t.Errorf("the server would be %s; set the constant sources to %q", path, sum)
	}
}

func TestServer(t *testing.T) {
	kubernetestest.Need(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	server, err := kubernetestest.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	}()
	namespace, err := server.Namespace(ctx)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := kubernetes.NewForConfig(server.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	leases := admin.CoordinationV1().Leases(namespace)
	if _, err := leases.Create(ctx, &coordination.Lease{ObjectMeta: meta.ObjectMeta{Name: "x"}}, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}

	t.Run("frozen it does not answer", func(t *testing.T) {
		if err := server.Freeze(); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(ctx, time.Second/5)
		defer cancel()
		if _, err := leases.Get(short, "x", meta.GetOptions{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the end of the context", err)
		}
		if err := server.Thaw(); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("its data survive a restart", func(t *testing.T) {
		if err := server.Restart(); err != nil {
			t.Fatal(err)
		}
		if _, err := leases.Get(ctx, "x", meta.GetOptions{}); err != nil {
			t.Error(err)
		}
	})
	t.Run("an account may do nothing", func(t *testing.T) {
		account := &core.ServiceAccount{ObjectMeta: meta.ObjectMeta{Name: "app"}}
		if _, err := admin.CoreV1().ServiceAccounts(namespace).Create(ctx, account, meta.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		config, err := server.Token(ctx, namespace, "app")
		if err != nil {
			t.Fatal(err)
		}
		app, err := kubernetes.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := app.CoordinationV1().Leases(namespace).Get(ctx, "x", meta.GetOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("error %v, want it forbidden", err)
		}
	})
}
