package kubernetes_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	clientset "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
)

// rights are what is in docs/kubernetes-rbac.yaml, applied in a namespace. All
// nodes of the tests have these rights, and no others.
type rights struct {
	t         testing.TB
	admin     clientset.Interface
	namespace string
	account   string
	binding   *rbac.RoleBinding
}

func grantRights(t testing.TB, admin clientset.Interface, namespace string) *rights {
	t.Helper()
	r := &rights{t: t, admin: admin, namespace: namespace}
	manifest, err := os.ReadFile("../docs/kubernetes-rbac.yaml")
	if err != nil {
		t.Fatal(err)
	}
	documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(manifest)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return r
		}
		if err == nil {
			err = r.apply(document)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (r *rights) apply(document []byte) (err error) {
	decoded, _, err := scheme.Codecs.UniversalDeserializer().Decode(document, nil, nil)
	if err != nil {
		return err
	}
	ctx, opts := r.t.Context(), meta.CreateOptions{}
	switch o := decoded.(type) {
	case *core.ServiceAccount:
		r.account = o.Name
		_, err = r.admin.CoreV1().ServiceAccounts(r.namespace).Create(ctx, o, opts)
	case *rbac.Role:
		_, err = r.admin.RbacV1().Roles(r.namespace).Create(ctx, o, opts)
	case *rbac.RoleBinding:
		r.binding = o
		_, err = r.admin.RbacV1().RoleBindings(r.namespace).Create(ctx, o, opts)
	default:
		err = fmt.Errorf("the manifest has a %T in it, which this test does not apply", o)
	}
	return err
}

// deny takes the rights away; allow gives them back.
func (r *rights) deny() {
	r.t.Helper()
	if err := r.admin.RbacV1().RoleBindings(r.namespace).Delete(r.t.Context(), r.binding.Name, meta.DeleteOptions{}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rights) allow() {
	r.t.Helper()
	if _, err := r.admin.RbacV1().RoleBindings(r.namespace).Create(r.t.Context(), r.binding, meta.CreateOptions{}); err != nil {
		r.t.Fatal(err)
	}
}
