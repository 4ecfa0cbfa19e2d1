package kubernetes_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"

	"highlander/kubernetes"
	"highlander/kubernetes/kubernetestest"
)

// writeKubeconfig writes one whose context has the namespace "theirs".
func writeKubeconfig(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := kubernetestest.WriteKubeconfig(path, &rest.Config{Host: "https://127.0.0.1:1"}, "theirs"); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBadURLs(t *testing.T) {
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	t.Setenv("HOME", t.TempDir())
	good := "kubeconfig=" + writeKubeconfig(t)
	broken := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(broken, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]string{
		"gossip://x":                           `scheme "gossip"; kubernetes://NAMESPACE is allowed`,
		"kubernetes:x":                         `the // after kubernetes: is missing; kubernetes://NAMESPACE is allowed`,
		"kubernetes://me@x":                    `a user is not allowed; credentials are in the kubeconfig, or the pod's`,
		"kubernetes://x/y":                     `path "/y" is not allowed; kubernetes://NAMESPACE is`,
		"kubernetes://x#y":                     `'#' is not allowed (in a value it is written %23)`,
		"kubernetes://x?prefix=y":              `unknown parameter "prefix"; allowed are name, ttl, kubeconfig, context`,
		"kubernetes://x?ttl=15":                `ttl=15: whole seconds from 2s to 10m0s, such as 15s, are allowed`,
		"kubernetes://x?ttl=0s":                `ttl=0s: whole seconds from 2s to 10m0s, such as 15s, are allowed`,
		"kubernetes://x?ttl=1500ms":            `ttl 1.5s: whole seconds from 2s to 10m0s are allowed`,
		"kubernetes://x?ttl=1s":                `ttl 1s: whole seconds from 2s to 10m0s are allowed`,
		"kubernetes://x?ttl=":                  `parameter "ttl" has no value; leave it out or give one`,
		"kubernetes://x?ttl=5s&ttl=6s":         `parameter "ttl" is given 2 times; once is allowed`,
		"kubernetes://x?name=a%23b":            `name "a#b": '#', spaces and control characters are not allowed`,
		"kubernetes://x":                       `this is no pod, and there is no kubeconfig: give one as kubeconfig=FILE, or in KUBECONFIG`,
		"kubernetes://":                        `this is no pod, and there is no kubeconfig: give one as kubeconfig=FILE, or in KUBECONFIG`,
		"kubernetes://x?kubeconfig=/no":        `kubeconfig: stat /no: no such file or directory`,
		"kubernetes://Bad_one?" + good:         `namespace "Bad_one": a lowercase RFC 1123 label must consist of`,
		"kubernetes://x?context=other&" + good: `context "other" does not exist`,
		"kubernetes://x?kubeconfig=" + broken:  `error loading config file "` + broken + `"`,
	} {
		c, err := kubernetes.Open(url)
		if err == nil {
			t.Errorf("%s: no error", url)
			_ = c.Close()
			continue
		}
		if got := err.Error(); !strings.HasPrefix(got, "kubernetes: ") || !strings.Contains(got, want) || strings.Contains(got, "\n") {
			t.Errorf("%s\n got %s\nwant %s", url, got, want)
		}
	}
}

func TestTheNamespaceMayBeThatOfTheKubeconfig(t *testing.T) {
	kubeconfig := writeKubeconfig(t)
	for url, want := range map[string]string{"kubernetes://": "theirs", "kubernetes://mine": "mine"} {
		c, err := kubernetes.Open(url + "?kubeconfig=" + kubeconfig)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Namespace(); got != want {
			t.Errorf("%s: namespace %q, want %q", url, got, want)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestOptionsOverrideTheURL(t *testing.T) {
	c, err := kubernetes.Open("kubernetes://x?name=url&ttl=5s&kubeconfig="+writeKubeconfig(t), kubernetes.WithName("option"), kubernetes.WithTTL(30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if !strings.HasPrefix(c.Node(), "option#") {
		t.Errorf("the node is %s", c.Node())
	}
	if err := c.CheckStopWithin(15 * time.Second); err != nil {
		t.Error(err)
	}
}

func TestBadArguments(t *testing.T) {
	client := fake.NewClientset()
	for want, open := range map[string]func() (*kubernetes.Cluster, error){
		"kubernetes: the clientset is nil":                     func() (*kubernetes.Cluster, error) { return kubernetes.New(nil, "x") },
		`kubernetes: namespace "": a lowercase RFC 1123 label`: func() (*kubernetes.Cluster, error) { return kubernetes.New(client, "") },
		"kubernetes: ttl 11m0s: whole seconds from 2s to 10m0s": func() (*kubernetes.Cluster, error) {
			return kubernetes.New(client, "x", kubernetes.WithTTL(11*time.Minute))
		},
		`kubernetes: name "a b": '#', spaces and control characters are`: func() (*kubernetes.Cluster, error) { return kubernetes.New(client, "x", kubernetes.WithName("a b")) },
	} {
		if _, err := open(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("error %v, want %s ...", err, want)
		}
	}
}

func TestNoLoggerIsTheDefaultOne(t *testing.T) {
	c, err := kubernetes.New(fake.NewClientset(), "x", kubernetes.WithLogger(nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestCheckStopWithin(t *testing.T) {
	c, err := kubernetes.New(fake.NewClientset(), "x")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.CheckStopWithin(5 * time.Second); err != nil {
		t.Errorf("the default Shutdown does not fit into the default TTL: %v", err)
	}
	err = c.CheckStopWithin(10 * time.Second)
	if want := "TTL 15s is too short to stop within 10s"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %v, want %s ...", err, want)
	}
}
