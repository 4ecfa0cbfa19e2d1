package highlander

// SetExit replaces os.Exit in s.
func (s *Singleton) SetExit(exit func(code int)) { s.exit = exit }
