// Package freeze stops processes for tests, with SIGSTOP.
package freeze
