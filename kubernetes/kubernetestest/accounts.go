package kubernetestest

import (
	"context"
	"fmt"

	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// AdminConfig is for a client that may do everything, as fast as it likes.
func (s *Server) AdminConfig() *rest.Config { return s.config(s.token) }

func (s *Server) config(token string) *rest.Config {
	return &rest.Config{
		Host:            s.Host(),
		BearerToken:     token,
		TLSClientConfig: rest.TLSClientConfig{CAData: s.ca},
		QPS:             -1,
	}
}

// admin returns a client that may do everything.
func (s *Server) admin() (admin *kubernetes.Clientset, hangUp func(), err error) {
	client, err := rest.HTTPClientFor(s.AdminConfig())
	if err != nil {
		return nil, nil, fmt.Errorf("kubernetestest: %w", err)
	}
	admin, err = kubernetes.NewForConfigAndClient(s.AdminConfig(), client)
	if err != nil {
		return nil, nil, fmt.Errorf("kubernetestest: %w", err)
	}
	return admin, func() { utilnet.CloseIdleConnectionsFor(client.Transport) }, nil
}

// Namespace makes a namespace of its own and returns its name.
func (s *Server) Namespace(ctx context.Context) (string, error) {
	admin, hangUp, err := s.admin()
	if err != nil {
		return "", err
	}
	defer hangUp()
	made, err := admin.CoreV1().Namespaces().Create(ctx,
		&core.Namespace{ObjectMeta: meta.ObjectMeta{GenerateName: "test-"}}, meta.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("kubernetestest: make a namespace: %w", err)
	}
	return made.Name, nil
}

// Token returns what a client needs to be a service account. When that is
// deleted, the server takes up to ten seconds to forget its credentials.
func (s *Server) Token(ctx context.Context, namespace, account string) (*rest.Config, error) {
	admin, hangUp, err := s.admin()
	if err != nil {
		return nil, err
	}
	defer hangUp()
	token, err := admin.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, &authentication.TokenRequest{}, meta.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("kubernetestest: make a token: %w", err)
	}
	return s.config(token.Status.Token), nil
}

// WriteKubeconfig writes a kubeconfig file for a client.
func WriteKubeconfig(path string, account *rest.Config, namespace string) error {
	const name = "highlander"
	err := clientcmd.WriteToFile(api.Config{
		Clusters:       map[string]*api.Cluster{name: {Server: account.Host, CertificateAuthorityData: account.CAData}},
		AuthInfos:      map[string]*api.AuthInfo{name: {Token: account.BearerToken}},
		Contexts:       map[string]*api.Context{name: {Cluster: name, AuthInfo: name, Namespace: namespace}},
		CurrentContext: name,
	}, path)
	if err != nil {
		return fmt.Errorf("kubernetestest: write %s: %w", path, err)
	}
	return nil
}
