package gossip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

// The tripwire notices the end of a process at once: each node keeps an idle
// stream to the next few nodes in the order of their names. When one breaks, it
// dials again. Refused, or answered by somebody else: the process is gone.
// Anything else proves nothing and is left to the failure detector.
//
// The dialer sends tripwireByte and the name of the node it means, behind its
// length and that of the label; the answer is one byte.
const (
	tripwireReach = 3 // nodes that each node watches

	tripwireYes = 'y' // you mean me
	tripwireNo  = 'n'

	tripwireTimeout = 500 * time.Millisecond // to dial and to be answered
	tripwireRetry   = time.Second            // between attempts to watch a node
)

// errNotThere is the proof that a process is gone.
var errNotThere = errors.New("another process answers at its address")

// tripwire watches nodes and answers those that watch this one.
type tripwire struct {
	label, self string
	dial        func(a memberlist.Address, timeout time.Duration) (net.Conn, error)
	gone        func(name string, proof error) // called from the watcher's goroutine
	watchers    map[string]*watcher            // by name; owned by the caller of watch and close
	running     sync.WaitGroup
}

// watcher watches one node.
type watcher struct {
	node memberlist.Address
	stop context.CancelFunc
	held chan struct{} // closed when there was a stream: a node that was never reached proves nothing
}

// watch makes targets, by name and address, the nodes to be watched. It is not
// to be called concurrently.
func (w *tripwire) watch(targets map[string]string) {
	for name, old := range w.watchers {
		if _, ok := targets[name]; !ok {
			old.stop()
			delete(w.watchers, name)
		}
	}
	for name, addr := range targets {
		if _, ok := w.watchers[name]; !ok {
			ctx, stop := context.WithCancel(context.Background())
			watcher := &watcher{memberlist.Address{Name: name, Addr: addr}, stop, make(chan struct{})}
			w.watchers[name] = watcher
			w.running.Go(func() { w.run(ctx, watcher) })
		}
	}
}

// close stops watching and waits.
func (w *tripwire) close() {
	w.watch(nil)
	w.running.Wait()
}

// run watches one node until ctx ends or it is gone.
func (w *tripwire) run(ctx context.Context, watcher *watcher) {
	held := false
	for ctx.Err() == nil {
		conn, err := w.ask(ctx, watcher.node)
		if err == nil {
			if !held {
				held = true
				close(watcher.held)
			}
			since := time.Now()
			hold(ctx, conn)
			if time.Since(since) >= tripwireRetry {
				continue // it broke: ask at once
			}
			conn, err = w.ask(ctx, watcher.node)
			if err == nil { // it breaks again and again
				conn.Close()
			}
		}
		if held && err != nil {
			if proof := w.confirm(ctx, watcher.node, err); proof != nil {
				w.gone(watcher.node.Name, proof)
				return
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(tripwireRetry):
		}
	}
}

// confirm returns the proof that a process is gone, nil if there is none. After
// an answer that proves nothing it asks a few more times: a process that is
// being killed closes its listener and its streams one by one.
func (w *tripwire) confirm(ctx context.Context, a memberlist.Address, err error) error {
	for wait := time.Millisecond; !isProof(err); wait *= 2 {
		if wait > 32*time.Millisecond {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		var conn net.Conn
		if conn, err = w.ask(ctx, a); err == nil {
			conn.Close()
			return nil
		}
	}
	return err
}

// answers says whether a node confirms its name within timeout.
func (w *tripwire) answers(name, addr string, timeout time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := w.askWithin(ctx, memberlist.Address{Name: name, Addr: addr}, timeout)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

func isProof(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, errNotThere)
}

// ask opens a stream to a and has it confirm its name.
func (w *tripwire) ask(ctx context.Context, a memberlist.Address) (net.Conn, error) {
	return w.askWithin(ctx, a, tripwireTimeout)
}

func (w *tripwire) askWithin(ctx context.Context, a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	conn, err := w.dial(a, timeout)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", a.Addr, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	conn.SetDeadline(time.Now().Add(timeout))
	answer := [1]byte{}
	if _, err = conn.Write(question(w.label, a.Name)); err == nil {
		_, err = io.ReadFull(conn, answer[:])
	}
	if err == nil && answer[0] != tripwireYes {
		err = errNotThere
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("ask %s for %s: %w", a.Addr, a.Name, err)
	}
	conn.SetDeadline(time.Time{})
	return conn, nil
}

// hold waits until conn breaks or ctx ends.
func hold(ctx context.Context, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	io.Copy(io.Discard, io.LimitReader(conn, 1)) // nothing is ever sent
	conn.Close()
}

func question(label, name string) []byte {
	q := []byte{tripwireByte, byte(len(label)), byte(len(name))}
	return append(append(q, label...), name...)
}

// serve answers a stream whose first byte was tripwireByte. If it asks for this
// node, and admit allows it, it stays open for as long as the other side has it.
func (w *tripwire) serve(conn net.Conn, admit func() error) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(tripwireTimeout))
	var lengths [2]byte
	if _, err := io.ReadFull(conn, lengths[:]); err != nil {
		return
	}
	text := make([]byte, int(lengths[0])+int(lengths[1]))
	if _, err := io.ReadFull(conn, text); err != nil {
		return
	}
	if string(text[:lengths[0]]) != w.label || string(text[lengths[0]:]) != w.self {
		conn.Write([]byte{tripwireNo})
		return
	}
	if admit() != nil {
		return
	}
	if _, err := conn.Write([]byte{tripwireYes}); err != nil {
		return
	}
	conn.SetDeadline(time.Time{})
	io.Copy(io.Discard, io.LimitReader(conn, 1))
}
