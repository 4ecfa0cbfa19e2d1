package etcd_test

import (
	"context"
	"log"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"highlander"
	"highlander/etcd"
)

func work(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func ExampleOpen() {
	cluster, err := etcd.Open("etcd://etcd-1,etcd-2,etcd-3/jobs?ca-file=/etc/etcd/ca.pem&user=jobs&password-file=/etc/jobs.pw")
	if err != nil {
		log.Fatal(err)
	}
	defer cluster.Close()
	worker := highlander.Wrap(cluster, highlander.ChildSpec{ID: "worker", Service: highlander.ServiceFunc(work)})
	log.Print(worker.Serve(context.Background()))
}

// The program has a client, which stays its own.
func ExampleNew() {
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            []string{"https://etcd-1:2379", "https://etcd-2:2379", "https://etcd-3:2379"},
		DialTimeout:          5 * time.Second,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	cluster, err := etcd.New(client, etcd.WithPrefix("/jobs"), etcd.WithTTL(15*time.Second))
	if err != nil {
		log.Fatal(err)
	}
	defer cluster.Close()
	log.Print(highlander.Run(context.Background(), cluster, "migrate", work))
}
