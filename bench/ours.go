package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// command is the highlander command.
type command struct{ file string }

// buildCommand builds it from this checkout.
func buildCommand(ctx context.Context, dir string) (command, error) {
	file := filepath.Join(dir, "highlander")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", file, "highlander/cmd/highlander").CombinedOutput()
	if err != nil {
		return command{}, fmt.Errorf("go build highlander/cmd/highlander: %w\n%s", err, out)
	}
	return command{file}, nil
}

// benchReport is what highlander bench --json prints, as far as it matters here.
type benchReport struct {
	Machine string        `json:"machine"`
	Version string        `json:"version"`
	Results []benchResult `json:"results"`
}

type benchResult struct {
	Rounds int           `json:"rounds"`
	Median time.Duration `json:"median_ns"`
	Max    time.Duration `json:"max_ns"`
}

// measure makes one of the measurements of highlander bench. The first of its
// results is the one that counts.
func (c command) measure(ctx context.Context, url, name string, rounds int) (benchReport, error) {
	cmd := exec.CommandContext(ctx, c.file, "bench", "--json", "--only", name, "--rounds", strconv.Itoa(rounds))
	cmd.Env = append(os.Environ(), "HIGHLANDER_CLUSTER="+url) // there may be a password in it: others see arguments
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		return benchReport{}, fmt.Errorf("highlander bench --only %s: %w: %s", name, err, lines[len(lines)-1])
	}
	var rep benchReport
	if err := json.Unmarshal(stdout.Bytes(), &rep); err != nil {
		return benchReport{}, fmt.Errorf("highlander bench --only %s --json: %w", name, err)
	}
	if len(rep.Results) == 0 || rep.Results[0].Rounds == 0 {
		return benchReport{}, fmt.Errorf("highlander bench --only %s: no figures", name)
	}
	return rep, nil
}
