//go:build !unix

package main

import "os"

// passedOn are the signals that the command gets when highlander does.
var passedOn []os.Signal

// hasTerminal is for the SIGHUP that comes when a terminal is gone.
func hasTerminal() bool { return false }
