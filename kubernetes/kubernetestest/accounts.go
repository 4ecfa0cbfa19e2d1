package kubernetestest

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strconv"

	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// API is a server as its administrator reaches it. Its methods may be called
// concurrently.
type API struct {
	port  int
	token string // of the administrator
	ca    []byte
}

// Connect returns the API of a server that another process has started, by the
// file that Server.Kubeconfig names.
func Connect(kubeconfig string) (*API, error) {
	access, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubernetestest: %w", err)
	}
	host, err := url.Parse(access.Host)
	if err != nil {
		return nil, fmt.Errorf("kubernetestest: %w", err)
	}
	port, err := strconv.Atoi(host.Port())
	if err != nil {
		return nil, fmt.Errorf("kubernetestest: %s: %w", access.Host, err)
	}
	return &API{port: port, token: access.BearerToken, ca: access.CAData}, nil
}

// Addr is where the server listens: 127.0.0.1 and a port, the same for as long as
// it exists.
func (a *API) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(a.port)) }

// Host is the URL of the server, as rest.Config.Host has it.
func (a *API) Host() string { return "https://" + a.Addr() }

// AdminConfig is for a client that may do everything, as fast as it likes.
func (a *API) AdminConfig() *rest.Config { return a.config(a.token) }

func (a *API) config(token string) *rest.Config {
	return &rest.Config{
		Host:            a.Host(),
		BearerToken:     token,
		TLSClientConfig: rest.TLSClientConfig{CAData: a.ca},
		QPS:             -1,
	}
}

// admin returns a client that may do everything.
func (a *API) admin() (admin *kubernetes.Clientset, hangUp func(), err error) {
	client, err := rest.HTTPClientFor(a.AdminConfig())
	if err != nil {
		return nil, nil, fmt.Errorf("kubernetestest: %w", err)
	}
	admin, err = kubernetes.NewForConfigAndClient(a.AdminConfig(), client)
	if err != nil {
		return nil, nil, fmt.Errorf("kubernetestest: %w", err)
	}
	return admin, func() { utilnet.CloseIdleConnectionsFor(client.Transport) }, nil
}

// Namespace makes a namespace of its own and returns its name.
func (a *API) Namespace(ctx context.Context) (string, error) {
	admin, hangUp, err := a.admin()
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
func (a *API) Token(ctx context.Context, namespace, account string) (*rest.Config, error) {
	admin, hangUp, err := a.admin()
	if err != nil {
		return nil, err
	}
	defer hangUp()
	token, err := admin.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, &authentication.TokenRequest{}, meta.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("kubernetestest: make a token: %w", err)
	}
	return a.config(token.Status.Token), nil
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
