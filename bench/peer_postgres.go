package main

import (
	"context"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	polling         = "polling"
	pollingInterval = 300 * time.Millisecond // HighlanderPG's default
)

// poller does what HighlanderPG does: a connection of its own tries to take a
// session-level advisory lock every 300 ms, the one who has it runs the child,
// and when the child has ended it disconnects.
type poller struct {
	config *pgx.ConnConfig
	key    int32
	conn   *pgx.Conn
	lost   chan struct{}
}

func openPolling(of candidacy) (elector, error) {
	url, err := withoutParams(of.URL, "name", "ttl", "schema")
	if err != nil {
		return nil, err
	}
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("polling: %w", err)
	}
	hash := fnv.New32a()
	hash.Write([]byte(of.ID))
	return &poller{config: config, key: int32(hash.Sum32()), lost: make(chan struct{})}, nil
}

func (p *poller) Campaign(ctx context.Context) (err error) {
	if p.conn, err = pgx.ConnectConfig(ctx, p.config); err != nil {
		return err
	}
	again := time.NewTicker(pollingInterval)
	defer again.Stop()
	for {
		var got bool
		if err := p.conn.QueryRow(ctx, "select pg_try_advisory_lock(1, $1)", p.key).Scan(&got); err != nil {
			return fmt.Errorf("try to take the lock: %w", err)
		}
		if got {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (p *poller) Resign(ctx context.Context) error { return p.conn.Close(ctx) }

// Lost is never closed: nothing breaks the connection while a figure is taken.
func (p *poller) Lost() <-chan struct{} { return p.lost }

func (p *poller) Close() error {
	if p.conn == nil {
		return nil
	}
	return p.conn.Close(context.Background())
}
