package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// link is what is known of the way from a node to the server.
type link struct {
	direct bool // the sockets end at the server: no proxy that may end while this process lives, and no translation of addresses, which may come with one
	local  bool // there is no network in between that could forge the end of a connection: a unix socket, or loopback
}

// linkOf looks at the addresses at both ends of a connection.
func linkOf(ctx context.Context, conn *pgx.Conn) link {
	socket := conn.PgConn().Conn()
	var client, server *netip.Addr
	var clientPort, serverPort *int32
	var pid int32
	err := conn.QueryRow(ctx, "select inet_client_addr(), inet_client_port(), inet_server_addr(), inet_server_port(), pg_backend_pid()").
		Scan(&client, &clientPort, &server, &serverPort, &pid)
	if err != nil {
		return link{}
	}
	if client == nil || server == nil {
		direct := client == nil && server == nil && unixPeerIsParentOf(socket, int(pid))
		return link{direct: direct, local: direct}
	}
	direct := same(socket.LocalAddr(), *client, *clientPort) && same(socket.RemoteAddr(), *server, *serverPort)
	return link{direct: direct, local: direct && client.IsLoopback() && server.IsLoopback()}
}

// same reports whether an address here is what the server says it is.
func same(here net.Addr, there netip.Addr, port int32) bool {
	tcp, ok := here.(*net.TCPAddr)
	if !ok {
		return false
	}
	addr := tcp.AddrPort()
	return addr.Addr().Unmap().WithZone("") == there.Unmap() && int32(addr.Port()) == port
}

// findLink finds out what the end of the connections may prove. Across a network the
// backend of the ring, which is blocked, has to look at its socket by itself: see
// wakeRing. Where it cannot, there is no proof.
func (s *session) findLink(ctx context.Context) error {
	work, ring := linkOf(ctx, s.work), linkOf(ctx, s.ring)
	s.way = link{direct: work.direct && ring.direct && !s.c.outlived, local: work.local && ring.local}
	if s.c.pretend != nil {
		s.way = *s.c.pretend
	}
	if s.way.local {
		return nil
	}
	_, err := s.ring.Exec(ctx, "select set_config('client_connection_check_interval', $1, false)", strconv.FormatInt(lookAtSocket.Milliseconds(), 10))
	if pgErr := (*pgconn.PgError)(nil); err != nil && !errors.As(err, &pgErr) {
		return fmt.Errorf("join: %w", err)
	}
	return nil
}
