package postgres_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"

	"highlander"
	"highlander/postgres"
)

// The program has a pool already: the cluster takes its settings.
func ExampleNew() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	cluster, err := postgres.New(pool)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = cluster.Close() }()

	worker := highlander.ServiceFunc(func(ctx context.Context) error {
		lease, _ := highlander.FromContext(ctx)
		_, err := pool.Exec(ctx, "update job set state = 'running', token = $1 where token <= $1", int64(lease.Token()))
		<-ctx.Done()
		return err
	})
	err = highlander.Wrap(cluster, highlander.ChildSpec{ID: "worker", Service: worker}).Serve(ctx)
	log.Print(err)
}

// A URL, as highlander run takes it.
func ExampleOpen() {
	cluster, err := postgres.Open("postgres://app@db.internal/app?sslmode=verify-full&ttl=12s&schema=highlander")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = cluster.Close() }()
	err = highlander.Run(context.Background(), cluster, "migrate", func(context.Context) error {
		return nil // runs on one node at a time
	})
	log.Print(err)
}

// For users that may not create tables.
func ExampleSchema() {
	fmt.Println(postgres.Schema("highlander")[:39])
	// Output: create schema if not exists "highlander
}
