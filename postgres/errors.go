package postgres

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
)

// Codes of errors of PostgreSQL.
const (
	codeInsufficientPrivilege = "42501"
	codeAdminShutdown         = "57P01"
	codeLockNotAvailable      = "55P03"
	codeDeadlock              = "40P01"
	codeSerialization         = "40001"
	codeUndefinedTable        = "42P01"
	codeInvalidSchema         = "3F000"
	codeUniqueViolation       = "23505"
	codeQueryCanceled         = "57014"
	codeProtocolViolation     = "08P01"
)

// permanentError is what time does not mend: it is the error of every Acquire.
type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

// retryable reports whether the same statements may well succeed in a moment, in
// this session.
func retryable(err error) bool {
	if errors.As(err, &errRowLocked{}) {
		return true
	}
	pgErr := (*pgconn.PgError)(nil)
	if !errors.As(err, &pgErr) {
		return false
	}
	switch pgErr.Code {
	case codeLockNotAvailable, codeDeadlock, codeSerialization, codeUniqueViolation:
		return true
	}
	return false
}
