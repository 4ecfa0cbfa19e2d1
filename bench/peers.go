package main

import (
	"fmt"
	"net/url"
	"strings"
	"time"
)

// peerKind is an elector that users pick.
type peerKind struct {
	open func(candidacy) (elector, error)
	// rest is how long the others have waited at least when a leader goes, and
	// period what passes between two looks or renewals.
	rest, period time.Duration

	clean func(candidacy) error // removes what contestants leave behind
}

var peers = map[string]peerKind{
	polling:        {openPolling, pollingInterval, pollingInterval, leavesNothing},
	election:       {openElection, 50 * time.Millisecond, electionTTL / 3, leavesNothing},
	leaderElection: {openLeaderElection, time.Second, 2 * time.Second, deleteLease},
}

// leavesNothing is for peers whose traces end with them, or their leases.
func leavesNothing(candidacy) error { return nil }

// target is a URL as highlander takes it, in parts. Lists of hosts are more than
// net/url would take.
type target struct {
	hosts, path string
	params      url.Values
}

func parseTarget(text string) (target, error) {
	_, rest, ok := strings.Cut(text, "://")
	if !ok {
		return target{}, fmt.Errorf("%q is not a URL", text)
	}
	rest, query, _ := strings.Cut(rest, "?")
	params, err := url.ParseQuery(query)
	if err != nil {
		return target{}, fmt.Errorf("%q: %w", text, err)
	}
	hosts, path, _ := strings.Cut(rest, "/")
	return target{hosts: hosts, path: path, params: params}, nil
}

// withParam returns the URL with one more parameter.
func withParam(text, key, value string) string {
	sep := "?"
	if strings.Contains(text, "?") {
		sep = "&"
	}
	return text + sep + key + "=" + url.QueryEscape(value)
}

// withoutParams returns the URL without some of its parameters.
func withoutParams(text string, keys ...string) (string, error) {
	to, err := parseTarget(text)
	if err != nil {
		return "", err
	}
	for _, key := range keys {
		to.params.Del(key)
	}
	base, _, _ := strings.Cut(text, "?")
	if len(to.params) == 0 {
		return base, nil
	}
	return base + "?" + to.params.Encode(), nil
}
