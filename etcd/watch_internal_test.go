package etcd

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A watch goes on where the last one ended. What is between is never told, so a
// history that is another one has the keys read again.
func TestWatchGoesOnOnlyInTheHistoryThatWasSeen(t *testing.T) {
	event := func(revision int64) *clientv3.Event {
		return &clientv3.Event{Kv: &mvccpb.KeyValue{ModRevision: revision}}
	}
	for _, test := range []struct {
		name string
		resp clientv3.WatchResponse
		want int64 // revision; zero: it is not followed
	}{
		{"events, of a server that has more to tell", clientv3.WatchResponse{
			Header: &pb.ResponseHeader{ClusterId: 1, Revision: 90}, Events: []*clientv3.Event{event(51), event(52)}}, 52},
		{"a sign of life", clientv3.WatchResponse{Header: &pb.ResponseHeader{ClusterId: 1, Revision: 70}}, 70},
		{"a confirmation, after which everything is still to come", clientv3.WatchResponse{
			Header: &pb.ResponseHeader{ClusterId: 1, Revision: 70}, Created: true}, 50},
		{"it was compacted", clientv3.WatchResponse{
			Header: &pb.ResponseHeader{ClusterId: 1, Revision: 90}, CompactRevision: 80, Canceled: true}, 0},
		{"an older state was restored", clientv3.WatchResponse{Header: &pb.ResponseHeader{ClusterId: 1, Revision: 49}}, 0},
		{"another etcd answers", clientv3.WatchResponse{Header: &pb.ResponseHeader{ClusterId: 2, Revision: 90}}, 0},
	} {
		at := position{etcd: 1, revision: 50}
		switch err := at.follow(test.resp); {
		case err == nil:
			at.passed(test.resp)
		default:
			at.revision = 0
		}
		if at.revision != test.want {
			t.Errorf("%s: at revision %d, want %d", test.name, at.revision, test.want)
		}
	}
}
