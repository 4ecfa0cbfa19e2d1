// Package postgres is the engine on PostgreSQL: session-level advisory locks say
// who holds an id, a small table keeps tokens and holders, and notifications wake
// who is next.
package postgres
