package kubernetes

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// location is what a cluster URL says of where the server is.
type location struct {
	namespace  string // empty: that of the pod or of the kubeconfig's context
	kubeconfig string
	context    string
}

// urlParams are the parameters of a cluster URL, in the order of the
// documentation.
var urlParams = []struct {
	name string
	set  func(l *location, c *config, value string) error
}{
	{"name", func(_ *location, c *config, value string) error {
		c.name = value
		return nil
	}},
	{"ttl", func(_ *location, c *config, value string) (err error) {
		if c.ttl, err = time.ParseDuration(value); err != nil || c.ttl == 0 {
			return fmt.Errorf("ttl=%s: whole seconds from %v to %v, such as 15s, are allowed", value, minTTL, maxTTL)
		}
		return nil
	}},
	{"kubeconfig", func(l *location, _ *config, value string) error {
		l.kubeconfig = value
		return nil
	}},
	{"context", func(l *location, _ *config, value string) error {
		l.context = value
		return nil
	}},
}

// parseURL reads kubernetes://NAMESPACE?name=N&ttl=15s&kubeconfig=FILE&context=C.
// The namespace and the kubeconfig are the location, the rest is options.
func parseURL(raw string) (location, []Option, error) {
	var l location
	u, err := url.Parse(raw)
	if err != nil {
		var detail *url.Error
		if errors.As(err, &detail) {
			err = detail.Err
		}
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
	case u.Fragment != "" || strings.HasSuffix(raw, "#"):
		return l, nil, errors.New("'#' is not allowed (in a value it is written %23)")
	}
	l.namespace = u.Host
	var set config
	if err := l.setParams(&set, u.RawQuery); err != nil {
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

func (l *location) setParams(c *config, query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return fmt.Errorf("parameters: %w", err)
	}
	var names []string
	for _, param := range urlParams {
		names = append(names, param.name)
	}
	for name := range values {
		if !slices.Contains(names, name) {
			return fmt.Errorf("unknown parameter %q; allowed are %s", name, strings.Join(names, ", "))
		}
	}
	for _, param := range urlParams {
		switch given := values[param.name]; {
		case len(given) > 1:
			return fmt.Errorf("parameter %q is given %d times; once is allowed", param.name, len(given))
		case len(given) == 1 && given[0] == "":
			return fmt.Errorf("parameter %q has no value; leave it out or give one", param.name)
		case len(given) == 1:
			if err := param.set(l, c, given[0]); err != nil {
				return err
			}
		}
	}
	return nil
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
