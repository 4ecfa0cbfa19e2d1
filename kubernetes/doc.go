// Package kubernetes is the engine on Kubernetes: one Lease object of
// coordination.k8s.io/v1 per id.
package kubernetes
