package kubernetestest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sources is a hash of what the server is built from. A test says so when it is
// not right any more.
const sources = "82135ab5c9fc"

// BuildCommand builds the server, unless that was done before. It works wherever
// this checkout's go.work does.
const BuildCommand = "go run highlander/kubernetes/kubernetestest/build"

// Binary returns where BuildCommand puts the server: in the user's directory for
// caches, under a name that changes with what it is built from.
func Binary() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("kubernetestest: %w", err)
	}
	return filepath.Join(dir, "highlander", "kube-apiserver-"+sources), nil
}

// find returns the server if it was built.
func find() (string, error) {
	path, err := Binary()
	if err != nil {
		return "", err
	}
	_, err = os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("kubernetestest: no Kubernetes API server here (%s); build it, which takes some minutes: %s", path, BuildCommand)
	}
	return path, err
}

// requireEnv lists the kinds of tests that must not be skipped.
const requireEnv = "HIGHLANDER_TEST_REQUIRE"

// Need skips the test, with the command that builds the server, where that was
// not done; or fails it, if HIGHLANDER_TEST_REQUIRE has "kubernetes" in its list.
func Need(t testing.TB) {
	t.Helper()
	_, err := find()
	switch {
	case err == nil:
	case Required():
		t.Fatalf("%s asks for Kubernetes: %v", requireEnv, err)
	default:
		t.Skip(err)
	}
}

// Required reports whether HIGHLANDER_TEST_REQUIRE has "kubernetes" in its list.
func Required() bool {
	return slices.Contains(strings.Split(os.Getenv(requireEnv), ","), "kubernetes")
}
