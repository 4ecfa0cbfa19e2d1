package gossip

import (
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// newStreams returns a transport for streams that come in.
func newStreams() *muxTransport {
	return &muxTransport{refused: func(string) {}, stopping: make(chan struct{}), changed: make(chan struct{})}
}

// opened makes a stream that came in and was charged for so many bytes.
func (t *muxTransport) opened(test *testing.T, bytes int) *trackedConn {
	test.Helper()
	here, there := net.Pipe()
	test.Cleanup(func() { here.Close(); there.Close() })
	c := &trackedConn{Conn: here, t: t, inbound: true}
	if err := t.track(c, inboundStream); err != nil {
		test.Fatal(err)
	}
	c.pay(bytes)
	return c
}

// pushedOut returns how many of the streams were, which have to be the first.
func pushedOut(t *testing.T, streams []*trackedConn) (count int) {
	t.Helper()
	for i, c := range streams {
		if !c.t.wasPushedOut(c) {
			continue
		}
		if count++; count != i+1 {
			t.Errorf("stream %d was pushed out before stream %d", i, count-1)
		}
		if err := c.SetDeadline(time.Time{}); err == nil {
			t.Errorf("stream %d was pushed out, and is open", i)
		}
	}
	return count
}

func TestStreamPushesOutTheOldestOfTooMany(t *testing.T) {
	mux := newStreams()
	var streams []*trackedConn
	for range maxInboundStreams {
		streams = append(streams, mux.opened(t, 0))
	}
	if n := pushedOut(t, streams); n != 0 {
		t.Fatalf("%d of %d streams were pushed out", n, len(streams))
	}
	streams = append(streams, mux.opened(t, 0), mux.opened(t, 0))
	if n := pushedOut(t, streams); n != 2 {
		t.Errorf("two too many pushed out %d", n)
	}
	streams[2].Close() // of its own
	streams = append(streams, mux.opened(t, 0))
	if n := pushedOut(t, streams); n != 2 {
		t.Errorf("there was room for one more, and yet %d are pushed out", n)
	}
}

func TestStreamPushesOutTheOldestWhenTheyTakeTooMuch(t *testing.T) {
	mux := newStreams()
	var streams []*trackedConn
	for range maxInboundBytes / maxStream {
		streams = append(streams, mux.opened(t, maxStream))
	}
	streams = append(streams, mux.opened(t, 0))
	if n := pushedOut(t, streams); n != 0 {
		t.Fatalf("%d streams were pushed out for nothing", n)
	}
	streams[len(streams)-1].pay(1)
	if n := pushedOut(t, streams); n != 1 {
		t.Errorf("one byte too many pushed out %d", n)
	}
}

// crowd returns a transport whose streams take all they may, and those that were
// pushed out for them. They hold a stream more than what is given room beside.
func crowd(t *testing.T) (mux *muxTransport, out []*trackedConn) {
	t.Helper()
	const room = maxInboundBytes / maxStream
	mux = newStreams()
	for range 2*room + 1 {
		out = append(out, mux.opened(t, maxStream))
	}
	out = out[:room+1]
	if n := pushedOut(t, out); n != len(out) {
		t.Fatalf("%d were pushed out, want %d", n, len(out))
	}
	return mux, out
}

// awaited asks for room in the background.
func (t *muxTransport) awaited(c *trackedConn) <-chan bool {
	given := make(chan bool, 1)
	go func() { given <- t.awaitRoom(c) }()
	return given
}

// What a stream holds that was pushed out is gone when those who read from it
// have closed it, and not before.
func TestRoomIsGivenWhenThePushedOutHaveLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mux, out := crowd(t)
		given := mux.awaited(mux.opened(t, 0))
		synctest.Wait()
		if len(given) > 0 {
			t.Fatal("room was given while the streams that were pushed out hold too much")
		}
		out[0].Close()
		if !<-given {
			t.Error("it was told that it was pushed out")
		}
		for _, c := range out {
			c.Close()
			c.Close() // which changes nothing
		}
		if mux.lingering != 0 {
			t.Errorf("%d bytes are held by nobody", mux.lingering)
		}
	})
}

func TestStreamThatIsPushedOutWaitsForRoomNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mux, _ := crowd(t)
		given := mux.awaited(mux.opened(t, 0))
		synctest.Wait()
		for range maxInboundStreams {
			mux.opened(t, 0)
		}
		if <-given {
			t.Error("a stream that was pushed out was given room")
		}
	})
}

func TestNobodyWaitsForRoomInATransportThatStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mux, _ := crowd(t)
		given := mux.awaited(mux.opened(t, 0))
		synctest.Wait()
		close(mux.stopping)
		<-given
	})
}
