//go:build !linux

package postgres

import "net"

// unixPeerIsParentOf cannot be known here.
func unixPeerIsParentOf(net.Conn, int) bool { return false }
