// Package etcd is the engine for those who run etcd.
package etcd
