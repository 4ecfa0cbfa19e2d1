package kubernetes

import (
	"errors"
	"fmt"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"highlander/internal/clusterurl"
)

// location is what a cluster URL says of where the server is.
type location struct {
	namespace  string // empty: that of the pod or of the kubeconfig's context
	kubeconfig string
	context    string
}

// parseURL reads kubernetes://NAMESPACE?name=N&ttl=15s&kubeconfig=FILE&context=C.
// The namespace and the kubeconfig are the location, the rest is options.
func parseURL(raw string) (location, []Option, error) {
	var l location
	u, err := clusterurl.Parse(raw)
	if err != nil {
		return l, nil, err
	}
	switch {
	case u.Scheme != "kubernetes":
		return l, nil, fmt.Errorf("scheme %q; kubernetes://NAMESPACE is allowed", u.Scheme)
	case u.Opaque != "":
		return l, nil, errors.New("the // after kubernetes: is missing; kubernetes://NAMESPACE is allowed")
	case u.User != nil:
		return l, nil, errors.New("a user is not allowed; credentials are in the kubeconfig, or the pod's")
	case u.Path != "" && u.Path != "/":
		return l, nil, fmt.Errorf("path %q is not allowed; kubernetes://NAMESPACE is", u.Path)
	}
	l.namespace = u.Host
	var set config
	err = clusterurl.SetParams(u.RawQuery, []clusterurl.Param{ // in the order of the documentation
		clusterurl.String("name", &set.name),
		clusterurl.Duration("ttl", &set.ttl, fmt.Sprintf("whole seconds from %v to %v, such as 15s, are allowed", minTTL, maxTTL)),
		clusterurl.String("kubeconfig", &l.kubeconfig),
		clusterurl.String("context", &l.context),
	})
	if err != nil {
		return l, nil, err
	}
	return l, set.asOptions(), nil
}

func (c config) asOptions() (opts []Option) {
	if c.name != "" {
		opts = append(opts, WithName(c.name))
	}
	if c.ttl != 0 {
		opts = append(opts, WithTTL(c.ttl))
	}
	return opts
}

// load finds the server: in a pod, what the pod is given; elsewhere, or if the
// URL names one, a kubeconfig.
func (l location) load() (cfg *rest.Config, namespace string, err error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = l.kubeconfig
	loaded := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: l.context})
	namespace = l.namespace
	if namespace == "" {
		if namespace, _, err = loaded.Namespace(); err != nil {
			return nil, "", unusable(err)
		}
	}
	if l.kubeconfig == "" && l.context == "" {
		cfg, err = rest.InClusterConfig()
		if !errors.Is(err, rest.ErrNotInCluster) {
			return cfg, namespace, err
		}
	}
	if cfg, err = loaded.ClientConfig(); err != nil {
		return nil, "", unusable(err)
	}
	return cfg, namespace, nil
}

// unusable says in one line what is wrong with the kubeconfig.
func unusable(err error) error {
	if clientcmd.IsEmptyConfig(err) {
		return errors.New("this is no pod, and there is no kubeconfig: give one as kubeconfig=FILE, or in KUBECONFIG")
	}
	return fmt.Errorf("kubeconfig: %w", oneLine(err))
}

func oneLine(err error) error { return errors.New(strings.Join(strings.Fields(err.Error()), " ")) }
