package postgrestest

import (
	"errors"
	"os/exec"
)

// Servers for tests are started on Unix only: these stand for what is missing.

var errUnix = errors.New("postgrestest: servers for tests are started on Unix only")

type (
	account struct{}
	signal  int
	process struct{ ended chan struct{} }
)

const (
	stopFast signal = iota
	quitAtOnce
)

func serverAccount() (*account, error) { return nil, errUnix }
func giveTo(string, *account) error    { return errUnix }
func runAs(*exec.Cmd, *account)        {}
func (p programs) start(chan<- func(), string, string, ...string) (*process, error) {
	return nil, errUnix
}
func (*process) pid() int            { return 0 }
func (*process) signal(signal) error { return errUnix }
func (*process) freeze() error       { return errUnix }
func (*process) thaw() error         { return errUnix }
