package highlander

import "time"

const ExitMargin = exitMargin

// SetExit replaces os.Exit in s.
func (s *Singleton) SetExit(exit func(code int)) { s.exit = exit }

// SetClock replaces the boot clock in s.
func (s *Singleton) SetClock(boot func() time.Duration) { s.boot = boot }
