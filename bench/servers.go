package main

import (
	"highlander/etcd/etcdtest"
	"highlander/kubernetes/kubernetestest"
	"highlander/postgres/postgrestest"
)

// server is one that was started for the measurements.
type server struct {
	url   string // for highlander --cluster
	close func() error
}

const etcdMembers = 3 // a write takes the disks of two, as in a cluster that survives one

// servers start the engines' servers on this machine.
var servers = map[string]func() (server, error){
	"postgres": func() (server, error) {
		s, err := postgrestest.Start("fsync = on") // a commit has to be worth what it is elsewhere
		if err != nil {
			return server{}, err
		}
		return server{s.URL(), s.Close}, nil
	},
	"etcd": func() (server, error) {
		s, err := etcdtest.Start(etcdMembers)
		if err != nil {
			return server{}, err
		}
		return server{s.URL(), s.Close}, nil
	},
	"kubernetes": func() (server, error) {
		s, err := kubernetestest.Start()
		if err != nil {
			return server{}, err
		}
		return server{s.URL(), s.Close}, nil
	},
}
