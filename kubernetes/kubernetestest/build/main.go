// Command build builds the Kubernetes API server that package kubernetestest
// starts, unless that was done before, and prints where it is. The sources are
// the module in the directory apiserver, which is no part of go.work: so nobody
// downloads Kubernetes who does not run this.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"highlander/kubernetes/kubernetestest"
)

func main() {
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		os.Exit(1)
	}
}

func build() error {
	binary, err := kubernetestest.Binary()
	if err != nil {
		return err
	}
	if _, err := os.Stat(binary); err == nil {
		fmt.Println(binary)
		return nil
	}
	found, err := exec.Command("go", "list", "-f", "{{.Dir}}", "highlander/kubernetes/kubernetestest").Output()
	if err != nil {
		return fmt.Errorf("looking for the sources: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(binary), 0o755); err != nil {
		return err
	}
	// Under another name first: a build that was broken off is none.
	unfinished := fmt.Sprintf("%s.%d", binary, os.Getpid())
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", unfinished, ".")
	cmd.Dir = filepath.Join(strings.TrimSpace(string(found)), "apiserver")
	cmd.Env = append(os.Environ(), "GOWORK=off")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	fmt.Fprintln(os.Stderr, "building a Kubernetes API server; this takes some minutes")
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build in %s: %w", cmd.Dir, err)
	}
	if err := os.Rename(unfinished, binary); err != nil {
		return err
	}
	fmt.Println(binary)
	return nil
}
