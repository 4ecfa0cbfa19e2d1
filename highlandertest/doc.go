// Package highlandertest helps to test programs that use highlander, and
// engines for it.
//
// New makes a cluster in memory whose nodes can be cut apart, frozen and
// killed. It starts no goroutines and needs the time only for timestamps and
// Expire, so it works inside testing/synctest, where a test says synctest.Wait
// instead of sleeping; it works outside of it just as well.
//
// TestCluster is the suite that every engine must pass.
package highlandertest
