package main

import (
	"context"
	"os"
	"syscall"
)

// passSignals passes every signal on to the command, but for those that mean
// highlander itself: SIGINT, SIGTERM, and the end of its terminal.
func (j *job) passSignals(ctx context.Context, signals <-chan os.Signal, hadTerminal bool, stop func()) {
	stopping := false
	for {
		select {
		case sig := <-signals:
			asked := sig == os.Interrupt || sig == syscall.SIGTERM
			hungUp := sig == syscall.SIGHUP && hadTerminal && !hasTerminal()
			if !asked {
				j.guard.Signal(sig.(syscall.Signal))
			}
			switch {
			case asked && stopping && !j.running.Load():
				j.log.Info("stopping already, and there is no command to kill", "id", j.spec.ID, "signal", sig.String())
			case asked && stopping:
				j.log.Warn("killing the command at the second signal", "id", j.spec.ID, "signal", sig.String())
				j.guard.Signal(syscall.SIGKILL)
			case (asked || hungUp) && !stopping:
				stopping = true
				stop() // before the log, which may block
				j.log.Info("stopping at a signal", "id", j.spec.ID, "signal", sig.String())
			}
		case <-ctx.Done():
			return
		}
	}
}
