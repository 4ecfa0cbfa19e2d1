package postgres_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"highlander"
	"highlander/postgres"
)

// processEnv is the URL of a process that is one node: it acquires the id "id" and
// says how that goes.
const processEnv = "HIGHLANDER_POSTGRES_TEST_PROCESS"

func runProcess(url string) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	c, err := postgres.Open(url, postgres.WithLogger(log))
	if err != nil {
		panic(err)
	}
	l, err := c.Acquire(context.Background(), "id", highlander.AcquireOptions{})
	if err != nil {
		panic(err)
	}
	fmt.Println("held", l.Token())
	<-l.Done()
	fmt.Println("lost", l.Err())
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test is over
}
