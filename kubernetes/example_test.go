package kubernetes_test

import (
	"context"
	"log"
	"os/signal"
	"syscall"

	clientset "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"highlander"
	"highlander/kubernetes"
)

// In a pod, the credentials are those of its service account. Elsewhere they are
// those of a kubeconfig, which is found as kubectl finds it.
func ExampleOpen() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()

	cluster, err := kubernetes.Open("kubernetes://jobs?ttl=15s")
	if err != nil {
		log.Fatal(err)
	}
	defer cluster.Close()

	worker := highlander.ServiceFunc(func(ctx context.Context) error {
		<-ctx.Done()
		return nil
	})
	singleton := highlander.Wrap(cluster, highlander.ChildSpec{ID: "worker", Service: worker})
	if err := singleton.Serve(ctx); err != nil {
		log.Print(err)
	}
}

// A program that has a clientset already passes it, under another name than this
// package's. Its rate limit has to leave room for a write per second and id.
func ExampleNew() {
	config, err := rest.InClusterConfig()
	if err != nil {
		log.Fatal(err)
	}
	config.QPS = -1 // the server has limits of its own, which are fair
	client, err := clientset.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}
	cluster, err := kubernetes.New(client, "jobs")
	if err != nil {
		log.Fatal(err)
	}
	defer cluster.Close()

	migrate := func(context.Context) error { return nil }
	if err := highlander.Run(context.Background(), cluster, "migrate", migrate); err != nil {
		log.Print(err)
	}
}
