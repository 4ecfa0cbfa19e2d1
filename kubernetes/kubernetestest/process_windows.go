package kubernetestest

import "errors"

// Servers for tests are started on Unix only: this stands for what is missing.

var errUnix = errors.New("kubernetestest: servers for tests are started on Unix only")

type (
	starter struct{}
	process struct{ ended chan struct{} }
)

func newStarter() *starter                                        { return nil }
func (*starter) close()                                           {}
func (*starter) start(_, _ string, _ ...string) (*process, error) { return nil, errUnix }
func (*process) kill() error                                      { return errUnix }
func (*process) freeze() error                                    { return errUnix }
func (*process) thaw() error                                      { return errUnix }
